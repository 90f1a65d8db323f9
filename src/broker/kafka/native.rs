//! The few calls of librdkafka that crate `rdkafka` does not offer, each wrapped so that the rest of this adapter is safe code.
//!
//! What is here and why: fetching whole batches from a queue of our own (one call per batch, not per record, and group events stay
//! apart from data), producing by topic handle (no name look-up, no allocation per record), flushing without `linger.ms`, the group
//! metadata with its generation (an unjoined member must not make a commit token), transaction errors with their flags, and connecting
//! before there is anything to ask.
//!
//! Invariant: each wrapper holds an [`Arc`] of the client that it came from, so no pointer outlives its client.

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use topology::record::Header;

/// Whatever keeps a client alive.
type Owner = Arc<dyn Any + Send + Sync>;

/// Whole milliseconds, as librdkafka takes them; a wait above zero is never rounded down to none.
fn millis(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// A topic's handle within one client.
pub(super) struct Topic {
    pointer: NonNull<rd::rd_kafka_topic_t>,
    _owner: Owner,
}

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topic {}
// SAFETY: as above; no method takes `&mut`.
unsafe impl Sync for Topic {}

impl Topic {
    /// The handle of `name` within `client`; `owner` is what keeps that client alive.
    pub(super) fn new<C: ClientContext>(client: &Client<C>, owner: Owner, name: &str) -> Result<Self, RDKafkaErrorCode> {
        let name = CString::new(name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the client lives (borrowed), the name is a C string; a null configuration takes the client's defaults.
        let pointer = unsafe { rd::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Self { pointer, _owner: owner }),
            None => Err(last_error()),
        }
    }

    /// Fetches a partition from `offset` on, into `queue`.
    pub(super) fn start(&self, partition: u32, offset: u64, queue: &Queue) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: both handles live; they are of the same client (the fetcher makes both).
        let done = unsafe {
            rd::rd_kafka_consume_start_queue(self.pointer.as_ptr(), partition as i32, offset as i64, queue.pointer.as_ptr())
        };
        if done == 0 { Ok(()) } else { Err(last_error()) }
    }

    /// Stops fetching a partition and purges what was fetched; returns when that is done.
    pub(super) fn stop(&self, partition: u32) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: the handle lives.
        let done = unsafe { rd::rd_kafka_consume_stop(self.pointer.as_ptr(), partition as i32) };
        if done == 0 { Ok(()) } else { Err(last_error()) }
    }

    /// True where a message's topic is this one.
    pub(super) fn is(&self, message: &Message<'_>) -> bool {
        self.pointer.as_ptr() == message.0.rkt
    }
}

/// Connects, waiting for a broker that takes a connection, and asks about all topics that the client has handles of, so that nothing has
/// to wait for that later.
pub(super) fn connect<C: ClientContext>(client: &Client<C>, wait: Duration) -> Result<(), RDKafkaErrorCode> {
    let mut found: *const rd::rd_kafka_metadata = ptr::null();
    // SAFETY: the client lives; a null topic means those that it knows. The answer is written where there is no error, and destroyed once.
    unsafe {
        let code = rd::rd_kafka_metadata(client.native_ptr(), 0, ptr::null_mut(), &raw mut found, millis(wait));
        if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(code.into());
        }
        rd::rd_kafka_metadata_destroy(found);
    }
    Ok(())
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_topic_new, destroyed once; the owner is dropped after this.
        unsafe { rd::rd_kafka_topic_destroy(self.pointer.as_ptr()) }
    }
}

fn last_error() -> RDKafkaErrorCode {
    // SAFETY: reads a thread-local of librdkafka.
    unsafe { rd::rd_kafka_last_error() }.into()
}

/// A queue of our own that fetched messages are forwarded to.
pub(super) struct Queue {
    pointer: NonNull<rd::rd_kafka_queue_t>,
    _owner: Owner,
}

// SAFETY: librdkafka's queues are locked inside and may be used from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// A new queue of `client`; `owner` is what keeps that client alive.
    pub(super) fn new<C: ClientContext>(client: &Client<C>, owner: Owner) -> Self {
        // SAFETY: the client lives (borrowed).
        let pointer = unsafe { rd::rd_kafka_queue_new(client.native_ptr()) };
        Self { pointer: NonNull::new(pointer).expect("invariant: rd_kafka_queue_new aborts when out of memory"), _owner: owner }
    }

    /// Ends a wait in [`Self::take`], now or the next one.
    pub(super) fn wake(&self) {
        // SAFETY: the queue lives.
        unsafe { rd::rd_kafka_queue_yield(self.pointer.as_ptr()) }
    }

    /// Up to `max` messages: those that are there, after waiting for at most `wait` until `max` are there.
    pub(super) fn take<'b>(&self, batch: &'b mut Batch, max: usize, wait: Duration) -> Messages<'b> {
        debug_assert!(batch.0.is_empty());
        batch.0.reserve(max);
        // SAFETY: the queue lives, and the vector has room for `max` pointers, of which librdkafka writes the number that it returns.
        unsafe {
            let got = rd::rd_kafka_consume_batch_queue(self.pointer.as_ptr(), millis(wait), batch.0.as_mut_ptr(), max);
            batch.0.set_len(usize::try_from(got).unwrap_or(0));
        }
        Messages(batch)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_new, destroyed once; the owner is dropped after this.
        unsafe { rd::rd_kafka_queue_destroy(self.pointer.as_ptr()) }
    }
}

/// Room for the pointers of a batch, kept between calls. Empty outside of [`Queue::take`] and [`Messages`].
#[derive(Default)]
pub(super) struct Batch(Vec<*mut rd::rd_kafka_message_t>);

// SAFETY: the vector is empty unless a `Messages` borrows it, and that one is not `Send`.
unsafe impl Send for Batch {}

/// Messages taken from a queue; given back to librdkafka when dropped.
pub(super) struct Messages<'b>(&'b mut Batch);

impl Messages<'_> {
    pub(super) fn len(&self) -> usize {
        self.0.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        // SAFETY: librdkafka gave valid pointers, which stay valid until they are destroyed in `drop`.
        self.0.0.iter().map(|&pointer| Message(unsafe { &*pointer }))
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        for pointer in self.0.0.drain(..) {
            // SAFETY: each pointer is destroyed once, and nothing that borrows a message outlives `self`.
            unsafe { rd::rd_kafka_message_destroy(pointer) }
        }
    }
}

/// One message, or an event of its partition.
#[derive(Clone, Copy)]
pub(super) struct Message<'m>(&'m rd::rd_kafka_message_t);

impl<'m> Message<'m> {
    /// The event, where this is not a record.
    pub(super) fn error(self) -> Option<RDKafkaErrorCode> {
        (self.0.err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.0.err.into())
    }

    /// What librdkafka says about the event.
    pub(super) fn error_text(self) -> String {
        // SAFETY: the message lives; the string belongs to it.
        unsafe { text(rd::rd_kafka_message_errstr(self.0)) }
    }

    pub(super) fn partition(self) -> u32 {
        self.0.partition as u32
    }

    pub(super) fn offset(self) -> i64 {
        self.0.offset
    }

    pub(super) fn key(self) -> Option<&'m [u8]> {
        // SAFETY: librdkafka's pointer and length, valid while the message lives.
        (!self.0.key.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.0.key.cast(), self.0.key_len) })
    }

    pub(super) fn value(self) -> Option<&'m [u8]> {
        // SAFETY: as for the key.
        (!self.0.payload.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.0.payload.cast(), self.0.len) })
    }

    /// Milliseconds since the epoch, -1 where the record has none.
    pub(super) fn timestamp(self) -> i64 {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives, `kind` is written.
        unsafe { rd::rd_kafka_message_timestamp(self.0, &raw mut kind) }
    }

    /// The headers in order. A name that is not UTF-8 has its bad bytes replaced.
    pub(super) fn headers(self) -> Headers<'m> {
        let mut list = ptr::null_mut();
        // SAFETY: the message lives; the list belongs to it. No headers is an error code and leaves the list null.
        let code = unsafe { rd::rd_kafka_message_headers(self.0, &raw mut list) };
        let found = code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        Headers { list: if found { list } else { ptr::null_mut() }, at: 0, _message: self }
    }
}

/// The headers of one message.
pub(super) struct Headers<'m> {
    list: *mut rd::rd_kafka_headers_t,
    at: usize,
    _message: Message<'m>,
}

impl<'m> Iterator for Headers<'m> {
    type Item = Header<'m>;

    fn next(&mut self) -> Option<Header<'m>> {
        if self.list.is_null() {
            return None;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list lives as long as the message; the three results are written when the index exists.
        let code = unsafe { rd::rd_kafka_header_get_all(self.list, self.at, &raw mut name, &raw mut value, &raw mut size) };
        if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.at += 1;
        // SAFETY: name is a C string and value `size` bytes (or null), both owned by the message.
        let (name, value) = unsafe {
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            (CStr::from_ptr(name), value)
        };
        // Kafka demands UTF-8 names; another client's broken name must not stop the stream.
        Some(Header { name: name.to_str().unwrap_or("\u{fffd}"), value })
    }
}

/// Hands a record to the producer, which copies it. `opaque` comes back with its delivery report.
pub(super) fn produce<C: ClientContext>(
    client: &Client<C>,
    topic: &Topic,
    record: &topology::record::Outgoing<'_>,
    opaque: usize,
) -> Result<(), RDKafkaErrorCode> {
    use rd::rd_kafka_vtype_t as v;
    let bytes = |part: Option<&[u8]>| part.map_or((ptr::null(), 0), |b| (b.as_ptr().cast::<c_void>(), b.len()));
    let (value, value_len) = bytes(record.value);
    let (key, key_len) = bytes(record.key);
    let headers = headers_of(record.headers);
    // SAFETY: client and topic live; the arguments follow librdkafka's types for each tag; F_COPY makes it copy the bytes before it
    // returns. The headers become librdkafka's own when the call succeeds, and are destroyed here when it does not.
    unsafe {
        let code = rd::rd_kafka_producev(
            client.native_ptr(),
            v::RD_KAFKA_VTYPE_RKT,
            topic.pointer.as_ptr(),
            v::RD_KAFKA_VTYPE_PARTITION,
            record.to.partition as i32,
            v::RD_KAFKA_VTYPE_MSGFLAGS,
            rd::RD_KAFKA_MSG_F_COPY,
            v::RD_KAFKA_VTYPE_VALUE,
            value,
            value_len,
            v::RD_KAFKA_VTYPE_KEY,
            key,
            key_len,
            v::RD_KAFKA_VTYPE_OPAQUE,
            opaque as *mut c_void,
            v::RD_KAFKA_VTYPE_TIMESTAMP,
            // 0 would mean "now" and differ at each replay.
            record.timestamp.max(1),
            v::RD_KAFKA_VTYPE_HEADERS,
            headers,
            v::RD_KAFKA_VTYPE_END,
        );
        if code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        if !headers.is_null() {
            rd::rd_kafka_headers_destroy(headers);
        }
        Err(code.into())
    }
}

/// A native copy of the headers; null where there are none (the usual case, and no allocation).
fn headers_of(headers: &[Header<'_>]) -> *mut rd::rd_kafka_headers_t {
    if headers.is_empty() {
        return ptr::null_mut();
    }
    // SAFETY: the list is new; names and values are copied before the call returns.
    unsafe {
        let list = rd::rd_kafka_headers_new(headers.len());
        for header in headers {
            let value = header.value.map_or(ptr::null(), |bytes| bytes.as_ptr().cast::<c_void>());
            let len = header.value.map_or(0, <[u8]>::len);
            rd::rd_kafka_header_add(list, header.name.as_ptr().cast::<c_char>(), header.name.len() as isize, value, len as isize);
        }
        list
    }
}

/// Waits until nothing is in flight or `wait` is over. Unlike `rdkafka`'s flush this ignores `linger.ms` meanwhile and returns the
/// moment the last record is acknowledged. Failed records stay in flight until the producer is polled.
pub(super) fn flush<C: ClientContext>(client: &Client<C>, wait: Duration) {
    // SAFETY: the client lives. The code tells only whether something is left, which callers ask for anyway.
    unsafe {
        rd::rd_kafka_flush(client.native_ptr(), millis(wait));
    }
}

/// A failed transactional call, with what librdkafka says about it.
#[derive(Debug)]
pub(super) struct TransactionError {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
    pub(super) fatal: bool,
    pub(super) must_abort: bool,
}

/// Takes ownership of librdkafka's error.
///
/// # Safety
/// `error` is null or came from librdkafka and is not used again.
unsafe fn transaction_result(error: *mut rd::rd_kafka_error_t) -> Result<(), TransactionError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error lives until it is destroyed here.
    unsafe {
        let failed = TransactionError {
            code: rd::rd_kafka_error_code(error).into(),
            text: text(rd::rd_kafka_error_string(error)),
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            must_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        rd::rd_kafka_error_destroy(error);
        Err(failed)
    }
}

/// A copy of librdkafka's string.
///
/// # Safety
/// `string` is null or a C string.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// Proof of (group, member, generation) at one moment.
pub(super) struct GroupMetadata(NonNull<rd::rd_kafka_consumer_group_metadata_t>);

impl PartialEq for GroupMetadata {
    /// The same member in the same generation.
    fn eq(&self, other: &Self) -> bool {
        self.generation() == other.generation() && self.member() == other.member()
    }
}

// SAFETY: an immutable value of its own, tied to no client.
unsafe impl Send for GroupMetadata {}

impl GroupMetadata {
    /// The consumer's present membership; none where it is not a member. Metadata without a generation would be accepted by the
    /// broker WITHOUT any fencing, so it is never made.
    pub(super) fn of<C: ClientContext>(consumer: &Client<C>) -> Option<Self> {
        // SAFETY: the client lives (borrowed); the result is ours.
        let metadata = Self(NonNull::new(unsafe { rd::rd_kafka_consumer_group_metadata(consumer.native_ptr()) })?);
        (metadata.generation() >= 0 && !metadata.member().is_empty()).then_some(metadata)
    }

    fn generation(&self) -> i32 {
        // SAFETY: the metadata lives.
        unsafe { rd::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) }
    }

    fn member(&self) -> String {
        // SAFETY: the metadata lives; the string belongs to it.
        unsafe { text(rd::rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr())) }
    }

    /// Adds offsets to the producer's open transaction, in the name of this member and generation.
    pub(super) fn send_offsets<C: ClientContext>(
        &self,
        producer: &Client<C>,
        offsets: &TopicPartitionList,
        wait: Duration,
    ) -> Result<(), TransactionError> {
        // SAFETY: producer, list and metadata live; the error is taken over.
        unsafe {
            transaction_result(rd::rd_kafka_send_offsets_to_transaction(
                producer.native_ptr(),
                offsets.ptr(),
                self.0.as_ptr(),
                millis(wait),
            ))
        }
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: made by librdkafka, destroyed once.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}
