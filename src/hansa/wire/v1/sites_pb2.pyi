from google.protobuf.internal import containers as _containers
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
    __slots__ = ("hello", "verdict", "declined", "secagg", "ledger")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    SECAGG_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    verdict: Verdict
    declined: Declined
    secagg: SecAggReply
    ledger: HeadSeen
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., declined: _Optional[_Union[Declined, _Mapping]] = ..., secagg: _Optional[_Union[SecAggReply, _Mapping]] = ..., ledger: _Optional[_Union[HeadSeen, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "plan_format", "software", "ledger_seq")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PLAN_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SEQ_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    plan_format: int
    software: str
    ledger_seq: int
    def __init__(self, protocol: _Optional[int] = ..., plan_format: _Optional[int] = ..., software: _Optional[str] = ..., ledger_seq: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("welcome", "offer", "work", "withdraw", "secagg", "ledger", "standing")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    SECAGG_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    offer: Offer
    work: Work
    withdraw: Withdraw
    secagg: SecAggAsk
    ledger: LedgerHead
    standing: Standing
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., work: _Optional[_Union[Work, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ..., secagg: _Optional[_Union[SecAggAsk, _Mapping]] = ..., ledger: _Optional[_Union[LedgerHead, _Mapping]] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("job", "state", "weight", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    state: str
    weight: float
    reason: str
    def __init__(self, job: _Optional[str] = ..., state: _Optional[str] = ..., weight: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("round", "plan_digest", "model_sha256", "model_size", "seconds", "nonce", "clip", "ledger_seq")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    MODEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SEQ_FIELD_NUMBER: _ClassVar[int]
    round: RoundId
    plan_digest: str
    model_sha256: str
    model_size: int
    seconds: float
    nonce: bytes
    clip: float
    ledger_seq: int
    def __init__(self, round: _Optional[_Union[RoundId, _Mapping]] = ..., plan_digest: _Optional[str] = ..., model_sha256: _Optional[str] = ..., model_size: _Optional[int] = ..., seconds: _Optional[float] = ..., nonce: _Optional[bytes] = ..., clip: _Optional[float] = ..., ledger_seq: _Optional[int] = ...) -> None: ...

class LedgerHead(_message.Message):
    __slots__ = ("seq", "hash", "after", "digests", "signature")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    hash: str
    after: int
    digests: bytes
    signature: bytes
    def __init__(self, seq: _Optional[int] = ..., hash: _Optional[str] = ..., after: _Optional[int] = ..., digests: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class HeadSeen(_message.Message):
    __slots__ = ("seq", "hash", "signature", "document")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    hash: str
    signature: bytes
    document: str
    def __init__(self, seq: _Optional[int] = ..., hash: _Optional[str] = ..., signature: _Optional[bytes] = ..., document: _Optional[str] = ...) -> None: ...

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

class SecAggAsk(_message.Message):
    __slots__ = ("round", "nonce", "roster", "inbox", "survivors", "votes")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    INBOX_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    round: RoundId
    nonce: bytes
    roster: Roster
    inbox: Sealed
    survivors: Survivors
    votes: Votes
    def __init__(self, round: _Optional[_Union[RoundId, _Mapping]] = ..., nonce: _Optional[bytes] = ..., roster: _Optional[_Union[Roster, _Mapping]] = ..., inbox: _Optional[_Union[Sealed, _Mapping]] = ..., survivors: _Optional[_Union[Survivors, _Mapping]] = ..., votes: _Optional[_Union[Votes, _Mapping]] = ...) -> None: ...

class SecAggReply(_message.Message):
    __slots__ = ("round", "nonce", "advert", "shares", "vote", "answer")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    ADVERT_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    round: RoundId
    nonce: bytes
    advert: Advert
    shares: Shares
    vote: bytes
    answer: Answer
    def __init__(self, round: _Optional[_Union[RoundId, _Mapping]] = ..., nonce: _Optional[bytes] = ..., advert: _Optional[_Union[Advert, _Mapping]] = ..., shares: _Optional[_Union[Shares, _Mapping]] = ..., vote: _Optional[bytes] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class Advert(_message.Message):
    __slots__ = ("name", "sealing_key", "masking_key", "signature", "document")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEALING_KEY_FIELD_NUMBER: _ClassVar[int]
    MASKING_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    sealing_key: bytes
    masking_key: bytes
    signature: bytes
    document: str
    def __init__(self, name: _Optional[str] = ..., sealing_key: _Optional[bytes] = ..., masking_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., document: _Optional[str] = ...) -> None: ...

class Roster(_message.Message):
    __slots__ = ("leaves", "degree", "threshold", "adverts", "revocations")
    class AdvertsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Advert
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Advert, _Mapping]] = ...) -> None: ...
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    DEGREE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ADVERTS_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    leaves: bytes
    degree: int
    threshold: int
    adverts: _containers.MessageMap[int, Advert]
    revocations: str
    def __init__(self, leaves: _Optional[bytes] = ..., degree: _Optional[int] = ..., threshold: _Optional[int] = ..., adverts: _Optional[_Mapping[int, Advert]] = ..., revocations: _Optional[str] = ...) -> None: ...

class Shares(_message.Message):
    __slots__ = ("commitment", "sealed")
    class SealedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    commitment: bytes
    sealed: _containers.ScalarMap[int, bytes]
    def __init__(self, commitment: _Optional[bytes] = ..., sealed: _Optional[_Mapping[int, bytes]] = ...) -> None: ...

class Sealed(_message.Message):
    __slots__ = ("sealed",)
    class SealedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    SEALED_FIELD_NUMBER: _ClassVar[int]
    sealed: _containers.ScalarMap[int, bytes]
    def __init__(self, sealed: _Optional[_Mapping[int, bytes]] = ...) -> None: ...

class Survivors(_message.Message):
    __slots__ = ("alive", "dropped")
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    alive: bytes
    dropped: bytes
    def __init__(self, alive: _Optional[bytes] = ..., dropped: _Optional[bytes] = ...) -> None: ...

class Votes(_message.Message):
    __slots__ = ("signatures",)
    class SignaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    signatures: _containers.ScalarMap[int, bytes]
    def __init__(self, signatures: _Optional[_Mapping[int, bytes]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("seeds", "keys")
    class SeedsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    seeds: _containers.ScalarMap[int, bytes]
    keys: _containers.ScalarMap[int, bytes]
    def __init__(self, seeds: _Optional[_Mapping[int, bytes]] = ..., keys: _Optional[_Mapping[int, bytes]] = ...) -> None: ...
