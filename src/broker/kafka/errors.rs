//! From Kafka's error codes to what the caller must do.
//!
//! The same code asks for different reactions in different calls (a time-out of a read is harmless, one of a commit leaves its
//! outcome unknown), so there is one function per kind of call.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use topology::broker::{BrokerError, Reaction};

use super::native::TransactionError;

/// Codes that no retry mends: someone must change credentials or grants.
pub(super) fn is_refused(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SecurityDisabled
    )
}

/// Codes that say that someone else holds this identity now, or that the group no longer knows us under it.
fn is_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId | Code::FencedMemberEpoch
    )
}

/// Codes that say that a member's proof is not of the present generation.
fn is_stale(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::RebalanceInProgress
            | Code::StaleMemberEpoch
            | Code::AssignmentLost
    )
}

/// Codes that say that a record or its batch is larger than the topic takes.
pub(super) fn is_too_large(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge)
}

/// The error of a call that changes nothing (reads, metadata, offsets asked for).
pub(super) fn of_read(doing: &str, error: &KafkaError) -> BrokerError {
    BrokerError::new(reaction_of_read(error.rdkafka_error_code()), format!("{doing}: {error}"))
}

/// The reaction to a failed read.
pub(super) fn reaction_of_read(code: Option<Code>) -> Reaction {
    match code {
        Some(code) if is_refused(code) => Reaction::Stop,
        Some(code) if is_fenced(code) => Reaction::Fenced,
        _ => Reaction::Retry,
    }
}

/// The error of a plain offset commit (at-least-once).
pub(super) fn of_offset_commit(error: &KafkaError) -> BrokerError {
    let reaction = match error.rdkafka_error_code() {
        Some(code) if is_refused(code) => Reaction::Stop,
        Some(code) if is_fenced(code) => Reaction::Fenced,
        Some(code) if is_stale(code) => Reaction::Abort,
        // Committing the same offsets again is harmless, whether or not the first commit arrived.
        _ => Reaction::Retry,
    };
    BrokerError::new(reaction, format!("committing offsets: {error}"))
}

/// The error of a record that could not be delivered or handed over: the transaction (or what was sent since the last flush) is
/// to be done again.
pub(super) fn of_delivery(topic: &str, code: Code) -> BrokerError {
    if is_too_large(code) {
        // Not `TooLarge`: by now nobody can tell which record of the batch it was. `send` refuses records above the topic's limit, so
        // the limit was lowered since this producer started.
        let what = format!(
            "topic {topic} refuses a batch as too large: its max.message.bytes is below what it was at the start; raise it, or restart"
        );
        return BrokerError::new(Reaction::Stop, what);
    }
    let reaction = match code {
        code if is_refused(code) => Reaction::Stop,
        code if is_fenced(code) => Reaction::Fenced,
        _ => Reaction::Abort,
    };
    BrokerError::new(reaction, format!("writing to topic {topic}: {code}"))
}

/// The error of a producer that is beyond repair: fenced, refused, or to be opened again.
pub(super) fn of_fatal(doing: &str, code: Code, text: &str) -> BrokerError {
    let reaction = match code {
        code if is_refused(code) => Reaction::Stop,
        code if is_fenced(code) => Reaction::Fenced,
        _ => Reaction::Unknown,
    };
    BrokerError::new(reaction, format!("{doing}: {text} ({code})"))
}

/// The error of adding offsets to a transaction: the transaction is open and has not been committed.
pub(super) fn of_send_offsets(error: &TransactionError) -> BrokerError {
    if error.fatal || is_refused(error.code) || is_fenced(error.code) && !error.must_abort {
        return of_fatal("adding offsets to the transaction", error.code, &error.text);
    }
    BrokerError::new(Reaction::Abort, format!("adding offsets to the transaction: {} ({})", error.text, error.code))
}

/// The error of ending a transaction. Unless librdkafka says that it must be aborted, it may have ended (I8).
pub(super) fn of_end(doing: &str, error: &KafkaError) -> BrokerError {
    let KafkaError::Transaction(inner) = error else {
        return BrokerError::new(Reaction::Unknown, format!("{doing}: {error}"));
    };
    if !inner.is_fatal() && inner.txn_requires_abort() {
        return BrokerError::new(Reaction::Abort, format!("{doing}: {} ({})", inner.string(), inner.code()));
    }
    of_fatal(doing, inner.code(), &inner.string())
}

/// The error of opening a producer under its transactional id.
pub(super) fn of_open(error: &KafkaError) -> BrokerError {
    let code = match error {
        KafkaError::Transaction(inner) => Some(inner.code()),
        other => other.rdkafka_error_code(),
    };
    let reaction = match code {
        Some(code) if is_refused(code) => Reaction::Stop,
        Some(Code::InvalidTransactionTimeout) => Reaction::Stop,
        // Nothing of the new producer's exists yet, so there is nothing that could have happened.
        _ => Reaction::Retry,
    };
    let hint = match code {
        Some(Code::InvalidTransactionTimeout) => "; the transaction timeout is above the broker's transaction.max.timeout.ms",
        _ => "",
    };
    BrokerError::new(reaction, format!("initialising the producer: {error}{hint}"))
}
