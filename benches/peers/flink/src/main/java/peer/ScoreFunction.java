package peer;

import static org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** The Kafka Streams peer's Score for Flink. Gives (user, verdict, goes to the anomalies). */
final class ScoreFunction extends KeyedProcessFunction<String, Tuple2<String, byte[]>, Tuple3<String, byte[], Boolean>> {
    private transient ObjectReader reader;
    private transient ObjectWriter writer;
    private transient ValueState<byte[]> profiles; // Profile's own binary form, so no serialiser of Flink's looks inside
    private transient float[] f;

    @Override public void open(OpenContext context) {
        ObjectMapper json = new ObjectMapper();
        reader = json.readerFor(Main.Tx.class);
        writer = json.writerFor(Main.Verdict.class);
        profiles = getRuntimeContext().getState(new ValueStateDescriptor<>("profiles", BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
        f = new float[10];
    }

    @Override public void processElement(Tuple2<String, byte[]> in, Context context, Collector<Tuple3<String, byte[], Boolean>> out)
        throws Exception {
        Main.Tx tx = reader.readValue(in.f1);
        long t = tx.millis(context.timestamp()), merchant = Profile.hash(tx.merchant());
        Profile profile = Profile.from(profiles.value());
        profile.features(tx.amount(), t, merchant, 800, f);
        double score = Main.forest.score(f);
        profile.update(tx.amount(), t, merchant);
        profiles.update(profile.bytes());
        boolean anomaly = score >= Main.threshold;
        byte[] verdict = writer.writeValueAsBytes(
            new Main.Verdict(tx.tx_id(), tx.user_id(), score, anomaly, anomaly ? "HIGH" : "NONE", "peer-1", t, f));
        out.collect(Tuple3.of(in.f0, verdict, false));
        if (anomaly) out.collect(Tuple3.of(in.f0, verdict, true));
    }
}
