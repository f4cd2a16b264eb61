from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("token", "csr_pem")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    csr_pem: bytes
    def __init__(self, token: _Optional[bytes] = ..., csr_pem: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("chain_pem", "node_document")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    NODE_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    node_document: str
    def __init__(self, chain_pem: _Optional[bytes] = ..., node_document: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_pem",)
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    csr_pem: bytes
    def __init__(self, csr_pem: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("chain_pem", "node_document")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    NODE_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    node_document: str
    def __init__(self, chain_pem: _Optional[bytes] = ..., node_document: _Optional[str] = ...) -> None: ...

class FromSite(_message.Message):
    __slots__ = ("hello", "verdict", "declined")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    verdict: Verdict
    declined: Declined
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., declined: _Optional[_Union[Declined, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "plan_format", "software")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PLAN_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    plan_format: int
    software: str
    def __init__(self, protocol: _Optional[int] = ..., plan_format: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("job", "accepted", "plan_digest", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    accepted: bool
    plan_digest: str
    reason: str
    def __init__(self, job: _Optional[str] = ..., accepted: _Optional[bool] = ..., plan_digest: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Declined(_message.Message):
    __slots__ = ("round", "reason")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    round: RoundId
    reason: str
    def __init__(self, round: _Optional[_Union[RoundId, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ToSite(_message.Message):
    __slots__ = ("welcome", "offer", "work", "withdraw")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    offer: Offer
    work: Work
    withdraw: Withdraw
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., work: _Optional[_Union[Work, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("federation", "site", "protocol", "coordinator_document")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    protocol: int
    coordinator_document: str
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., protocol: _Optional[int] = ..., coordinator_document: _Optional[str] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("job", "words", "facts", "plan_digest", "bundle_sha256", "bundle_size", "bundle_signature")
    JOB_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SIZE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    job: str
    words: str
    facts: str
    plan_digest: str
    bundle_sha256: str
    bundle_size: int
    bundle_signature: str
    def __init__(self, job: _Optional[str] = ..., words: _Optional[str] = ..., facts: _Optional[str] = ..., plan_digest: _Optional[str] = ..., bundle_sha256: _Optional[str] = ..., bundle_size: _Optional[int] = ..., bundle_signature: _Optional[str] = ...) -> None: ...

class RoundId(_message.Message):
    __slots__ = ("job", "purpose", "round", "attempt")
    JOB_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    job: str
    purpose: str
    round: int
    attempt: int
    def __init__(self, job: _Optional[str] = ..., purpose: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Work(_message.Message):
    __slots__ = ("round", "plan_digest", "model_sha256", "model_size", "seconds")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    MODEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    round: RoundId
    plan_digest: str
    model_sha256: str
    model_size: int
    seconds: float
    def __init__(self, round: _Optional[_Union[RoundId, _Mapping]] = ..., plan_digest: _Optional[str] = ..., model_sha256: _Optional[str] = ..., model_size: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Withdraw(_message.Message):
    __slots__ = ("job", "round", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: RoundId
    reason: str
    def __init__(self, job: _Optional[str] = ..., round: _Optional[_Union[RoundId, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("sha256", "offset")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    offset: int
    def __init__(self, sha256: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class DeliverPart(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: DeliverHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[DeliverHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class DeliverHeader(_message.Message):
    __slots__ = ("round", "plan_digest", "layout_digest", "size", "sha256")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    round: RoundId
    plan_digest: str
    layout_digest: str
    size: int
    sha256: str
    def __init__(self, round: _Optional[_Union[RoundId, _Mapping]] = ..., plan_digest: _Optional[str] = ..., layout_digest: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class DeliverReply(_message.Message):
    __slots__ = ("go", "receipt")
    GO_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    go: Go
    receipt: Receipt
    def __init__(self, go: _Optional[_Union[Go, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Go(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("document", "signature")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    document: str
    signature: bytes
    def __init__(self, document: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...
