# One image with every program of the project; the command chooses which:
#
#   docker build --tag notifications .
#   docker run --rm notifications producer --help
#   docker run --rm --read-only --network host --volume notifications:/data notifications standalone

# Brings what librdkafka is built with: gcc, g++, make, pkg-config and OpenSSL's headers.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# No cache mounts: the builder of Docker engines before 23 (Debian 12 has 20.10) knows none.
RUN cargo build --release --locked --features full -p producer -p consumer -p standalone \
    && install -D --target-directory /out \
        target/release/producer target/release/consumer target/release/standalone

# The same Debian as above, so the libraries are those that the programs were linked with. A base without a shell
# (distroless, scratch) would be some 20 MB smaller, but lacks zlib and, in part, OpenSSL: copied by hand, no update
# would reach them and no scanner see them. A static OpenSSL has the same fault, and costs minutes of build.
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="notifications" \
    org.opencontainers.image.description="Real-time notifications on Kafka: producer, consumer, standalone" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
# The versions are Debian 12's own, which change for security fixes alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 notifications \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin notifications \
    && install --directory --owner=notifications --group=notifications /data
COPY --from=build /out/ /usr/local/bin/
# In numbers, so that Kubernetes can tell that it is not root.
USER 10001:10001
# The folder 'data' in which standalone keeps everything by default is the one just made; nothing else is written,
# so all of this runs with a read-only root file system.
WORKDIR /
EXPOSE 8080 8081
# The container's first process is the service, whichever was chosen; its own program knows how to ask it.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["/proc/1/exe", "healthcheck"]
CMD ["standalone"]
