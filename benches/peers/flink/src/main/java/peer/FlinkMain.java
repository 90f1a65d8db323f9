package peer;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * The Flink peer: KafkaSource, keyBy(user), a keyed process function with its profile in RocksDB, KafkaSink; one JVM, local cluster.
 *
 * <p>args: bootstrap appId stateDir threads eos|alo topic. -Dflink.KEY=VALUE overrides a setting of Flink, for example
 * flink.execution.checkpointing.interval, which is its commit interval. RocksDB's working files lie in stateDir; Flink begins each
 * start without them and restores them from the newest retained checkpoint, which therefore lies beside that folder, in
 * stateDir.checkpoints, as it would on an object store.
 */
public final class FlinkMain {
    public static void main(String[] a) throws Exception {
        Main.train();
        String bootstrap = a[0], app = a[1], topic = a[5];
        boolean eos = a[4].equals("eos");
        int threads = Integer.parseInt(a[3]);
        Path state = Path.of(a[2]).toAbsolutePath();
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(threads, settings(state, eos));
        // A uid each: by it the state in a checkpoint finds its operator again.
        env.fromSource(source(bootstrap, app, topic, eos), WatermarkStrategy.noWatermarks(), "payments").uid("payments")
            .keyBy(payment -> payment.f0, Types.STRING)
            .process(new ScoreFunction()).uid("score")
            .sinkTo(sink(bootstrap, app, eos)).uid("verdicts");
        try {
            env.execute(app);
        } catch (Exception e) {
            e.printStackTrace();
            System.exit(1);
        }
    }

    private static Configuration settings(Path state, boolean eos) throws IOException {
        Path checkpoints = Files.createDirectories(Path.of(state + ".checkpoints"));
        Map<String, String> s = new HashMap<>();
        s.put("execution.checkpointing.interval", "100ms");
        s.put("execution.checkpointing.mode", eos ? "EXACTLY_ONCE" : "AT_LEAST_ONCE");
        s.put("execution.checkpointing.incremental", "true");
        s.put("execution.checkpointing.storage", "filesystem");
        s.put("execution.checkpointing.dir", checkpoints.toUri().toString());
        s.put("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
        // At 100 ms RocksDB would write a file for each checkpoint and compact without end. Flink's answer is its state changelog: a
        // checkpoint stores what has changed, and RocksDB's files follow every 10 s.
        s.put("state.changelog.enabled", "true");
        s.put("state.changelog.storage", "filesystem");
        s.put("state.changelog.periodic-materialize.interval", "10s");
        s.put("dstl.dfs.base-path", checkpoints.resolve("changelog").toUri().toString());
        s.put("dstl.dfs.compression.enabled", "true");
        s.put("state.backend.type", "rocksdb");
        s.put("state.backend.rocksdb.localdir", state.resolve("rocksdb").toString());
        s.put("state.backend.rocksdb.use-bloom-filter", "true");
        s.put("taskmanager.memory.managed.size", "384m"); // all of RocksDB's memory: what the Kafka Streams peer gives its stores
        s.put("io.tmp.dirs", Files.createDirectories(state.resolve("tmp")).toString());
        s.put("pipeline.object-reuse", "true");
        s.put("pipeline.generic-types", "false"); // no type may fall back to Kryo
        s.put("execution.buffer-timeout.interval", "10ms"); // the default of 100 ms would be seen in the latency
        s.put("restart-strategy.type", "none"); // a peer that fails has failed
        System.getProperties().stringPropertyNames().stream().filter(name -> name.startsWith("flink."))
            .forEach(name -> s.put(name.substring("flink.".length()), System.getProperty(name)));
        newestCheckpoint(checkpoints).ifPresent(path -> {
            System.out.println("restored from " + path);
            s.put("execution.state-recovery.path", path.toUri().toString());
            s.put("execution.state-recovery.claim-mode", "CLAIM"); // its files are used on: no full checkpoint first
        });
        return Configuration.fromMap(s);
    }

    /** A checkpoint is whole when it has its {@code _metadata}, which Flink renames into place last. */
    private static Optional<Path> newestCheckpoint(Path checkpoints) throws IOException {
        try (var files = Files.find(checkpoints, 3, (path, attributes) -> path.endsWith("_metadata"))) {
            return files.max(Comparator.comparingLong(path -> path.toFile().lastModified())).map(Path::getParent);
        }
    }

    private static KafkaSource<Tuple2<String, byte[]>> source(String bootstrap, String app, String topic, boolean eos) {
        return KafkaSource.<Tuple2<String, byte[]>>builder()
            .setBootstrapServers(bootstrap).setGroupId(app).setTopics(topic).setStartingOffsets(OffsetsInitializer.earliest())
            .setProperty("isolation.level", eos ? "read_committed" : "read_uncommitted")
            .setDeserializer(new Records.Payments()).build();
    }

    private static KafkaSink<Tuple3<String, byte[], Boolean>> sink(String bootstrap, String app, boolean eos) {
        Properties p = new Properties();
        p.put("compression.type", "lz4");
        p.put("linger.ms", Integer.getInteger("peer.linger", 20).toString());
        p.put("batch.size", Integer.getInteger("peer.batch", 131072).toString());
        p.put("buffer.memory", String.valueOf(64 << 20));
        // Longer than any outage, since Flink commits what it had prepared only after a restart; at most what the broker allows.
        p.put("transaction.timeout.ms", "600000");
        return KafkaSink.<Tuple3<String, byte[], Boolean>>builder()
            .setBootstrapServers(bootstrap).setKafkaProducerConfig(p)
            .setRecordSerializer(new Records.Verdicts("verdicts-" + app, "anomalies-" + app))
            .setDeliveryGuarantee(eos ? DeliveryGuarantee.EXACTLY_ONCE : DeliveryGuarantee.AT_LEAST_ONCE)
            .setTransactionalIdPrefix(app).setTransactionNamingStrategy(TransactionNamingStrategy.POOLING).build();
    }
}
