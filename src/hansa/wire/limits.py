"""How large and how slow anything on the wire may be. Nothing is unbounded."""

from __future__ import annotations

from typing import Final

PROTOCOL: Final = 3
"""Version of the meaning of `proto/hansa/v1`; both sides must speak the same."""

CHUNK: Final = 1 << 20
"""Bytes of one chunk of a vector: on loopback, 1 MiB carries three times what 64 KiB does."""

MAX_MESSAGE: Final = CHUNK + (64 << 10)
"""Largest message of a stream: a chunk and its framing."""

MAX_DOCUMENT: Final = 512 << 10
"""Largest canonical JSON document: a job, the facts of a task."""

MAX_BUNDLE: Final = 4 << 20
"""Largest bundle of task code in bytes."""

HANDSHAKE_SECONDS: Final = 10.0
"""Time for the TLS handshake, and for a hello after a stream was opened."""

CALL_SECONDS: Final = 30.0
"""Time for a short call such as a renewal."""

CHUNK_SECONDS: Final = 30.0
"""Longest silence between two chunks of one transfer."""

CONTENDED_SECONDS: Final = 2.0
"""The same while others wait for the memory that the transfer holds."""

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_SECONDS)),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.so_reuseport", 0),
    # The library would let windows grow to megabytes for each stream of each site.
    ("grpc.http2.bdp_probe", 0),
    # It would also keep a buffer as large as the largest message for each connection.
    ("grpc.experimental.tcp_max_read_buffer_size", 64 << 10),
)

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
