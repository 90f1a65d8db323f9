# The image: one binary on a small Debian, nobody's root. `docker build -t mangrove .`; docker-compose.yml builds it too.
# scripts/deploy.sh runs these steps without Docker, so keep to FROM, WORKDIR, COPY, RUN and what describes the container.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY scripts/setup.sh scripts/cargo.sh scripts/
RUN scripts/setup.sh build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY models models
COPY state state
COPY topology topology
COPY benches benches
COPY src src
RUN scripts/cargo.sh build --release --locked --workspace
RUN install -D --strip target/release/mangrove /out/mangrove

FROM debian:bookworm-slim
# What the binary links (scripts/deploy.sh compares with ldd), and the authorities for TLS.
RUN apt-get -q update && apt-get -q -y install --no-install-recommends ca-certificates libssl3 libstdc++6 zlib1g && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 mangrove && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin mangrove
RUN install -d -o 10001 -g 10001 -m 0750 /data /models
COPY --from=build /out/mangrove /usr/local/bin/mangrove
USER 10001:10001
WORKDIR /data
# Everything that is written: state, broker, models. The rest of the file system may be read-only.
ENV STATE_DIR=/data/state EMBEDDED_DIR=/data/broker MODEL_STORE=/models MODEL_PATH=/models/current.forest TRAINING_DIR=/data/training LOG_FORMAT=json
VOLUME ["/data", "/models"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# Alive means: progress is being committed. The answer takes no token.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["mangrove", "probe", "livez"]
ENTRYPOINT ["mangrove"]
CMD ["run"]
