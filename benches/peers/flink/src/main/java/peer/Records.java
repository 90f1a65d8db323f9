package peer;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetIdentifier;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacetProvider;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Kafka's records to and from what flows through the job; Flink carries the record's timestamp beside it. */
final class Records {
    /** (user, JSON): the user is the record's key, so nothing is parsed before the job is keyed. */
    static final class Payments implements KafkaRecordDeserializationSchema<Tuple2<String, byte[]>> {
        @Override public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Tuple2<String, byte[]>> out) {
            out.collect(Tuple2.of(new String(record.key(), StandardCharsets.UTF_8), record.value()));
        }

        @Override public TypeInformation<Tuple2<String, byte[]>> getProducedType() {
            return Types.TUPLE(Types.STRING, Types.PRIMITIVE_ARRAY(Types.BYTE));
        }
    }

    /** One sink, hence one transaction, for both topics; it asks for them to find the transactions that a killed run left open. */
    static final class Verdicts implements KafkaRecordSerializationSchema<Tuple3<String, byte[], Boolean>>, KafkaDatasetFacetProvider {
        private final String verdicts, anomalies;

        Verdicts(String verdicts, String anomalies) { this.verdicts = verdicts; this.anomalies = anomalies; }

        @Override public ProducerRecord<byte[], byte[]> serialize(Tuple3<String, byte[], Boolean> v, KafkaSinkContext context, Long time) {
            return new ProducerRecord<>(v.f2 ? anomalies : verdicts, null, time, v.f0.getBytes(StandardCharsets.UTF_8), v.f1);
        }

        @Override public Optional<KafkaDatasetFacet> getKafkaDatasetFacet() {
            return Optional.of(new DefaultKafkaDatasetFacet(DefaultKafkaDatasetIdentifier.ofTopics(List.of(verdicts, anomalies))));
        }
    }

    private Records() { }
}
