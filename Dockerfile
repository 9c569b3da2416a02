# One image with every program of the project; the command chooses which:
#
#   docker build --tag notifications .
#   docker run --rm notifications producer --help
#   docker run --rm --read-only --volume notifications:/data --env STANDALONE_INSECURE=true \
#       --publish 127.0.0.1:8080:8080 --publish 127.0.0.1:8081:8081 notifications
#
# STANDALONE_INSECURE, because without authentication the services listen on the container's own loopback only if they
# are told so, and a published port does not reach that. Here the ports are published on this machine's loopback.

# This image has what librdkafka needs to build: gcc, g++, make, pkg-config and OpenSSL's headers.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# No cache mounts: Docker engines before 23 (Debian 12 has 20.10) do not support them by default.
RUN cargo build --release --locked --features full -p producer -p consumer -p standalone \
    && install -D --target-directory /out \
        target/release/producer target/release/consumer target/release/standalone

# The same Debian as above, so that the libraries match those of the build. A base without a shell (distroless,
# scratch) would be some 20 MB smaller, but lacks zlib and parts of OpenSSL. Copies of them would get no updates, and
# scanners would not find them; the same is true of a static OpenSSL, which also takes minutes to build.
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="notifications" \
    org.opencontainers.image.description="Real-time notifications on Kafka: producer, consumer, standalone" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
# Not pinned: Debian 12 changes these packages only for security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 notifications \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin notifications \
    && install --directory --owner=notifications --group=notifications /data
COPY --from=build /out/ /usr/local/bin/
COPY deploy/healthcheck /usr/local/bin/healthcheck
# A published port reaches the container's own address, and not its loopback, the programs' default. Without
# authentication or --insecure they then refuse to start, and say why, instead of running unreachable.
ENV PRODUCER_LISTEN=0.0.0.0:8080 CONSUMER_LISTEN=0.0.0.0:8081
# As a number, so that Kubernetes can check that it is not root (runAsNonRoot).
USER 10001:10001
# standalone's default folder, data/, is then /data. The programs write no other files, so the root file system can be
# read-only.
WORKDIR /
EXPOSE 8080 8081
# The script finds the chosen service and its port, also behind the init of 'docker run --init'.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["healthcheck"]
CMD ["standalone"]
