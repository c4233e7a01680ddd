//! Which limit has to fit in which other, checked at compile time.

use crate::limits::{
    AGI_COMMAND_BYTES_MAX, AGI_ENVIRONMENT_BYTES_MAX, AMI_LINE_BYTES_MAX, AMI_MESSAGE_BYTES_MAX,
    AMI_USERNAME_BYTES_MAX, AMI_VALUE_BYTES_MAX, ANSWER_BUFFER_BYTES_MAX, AUDIT_BUFFER_BYTES_MAX, AUDIT_ERRORS_MAX,
    AUDIT_ERRORS_PER_PEER_MAX, AUDIT_RECORD_BYTES_MAX, CONNECTIONS_DEFAULT, EVAPI_BUSY_BYTES, EVAPI_WRITE_BYTES_MAX,
    FREESWITCH_BLOCK_BYTES_MAX, GROUPS_PER_ORGANIZATION_MAX, ID_BYTES_MAX, LINE_ANSWER_BYTES_MAX, LINE_BYTES_MAX,
    LINK_PATTERN_BYTES_MAX, LINK_RECONNECT_PAUSE_MAX, LINK_RECONNECT_PAUSE_MIN, LOG_ERRORS_MAX,
    LOG_ERRORS_PER_PEER_MAX, NETSTRING_BYTES_MAX, NUMBER_DIGITS_MAX, ORGANIZATIONS_MAX, QUESTIONS_AHEAD_MAX,
    QUESTIONS_PER_TURN_MAX, QUEUES_PER_ORGANIZATION_MAX, QUEUES_PER_USER_MAX, READ_BUFFER_BYTES_MAX,
    REFUSALS_AT_ONCE_MAX, ROLES_PER_MODEL_MAX, SELF_TEST_AGE_MAX, SELF_TEST_INTERVAL, SETTINGS_PER_MODEL_MAX,
    USERS_PER_ORGANIZATION_MAX, VALUE_BYTES_MAX,
};

const _: () = {
    assert!(QUEUES_PER_ORGANIZATION_MAX <= u16::MAX as usize, "a queue id is a u16");
    assert!(GROUPS_PER_ORGANIZATION_MAX <= u16::MAX as usize, "a group id is a u16");
    assert!(ORGANIZATIONS_MAX <= u16::MAX as usize, "an organization id is a u16");
    assert!(USERS_PER_ORGANIZATION_MAX < (u32::MAX / 2) as usize, "a user id is a u32 with one bit to spare");
    assert!(ROLES_PER_MODEL_MAX <= 16 && SETTINGS_PER_MODEL_MAX <= 64, "sets of roles and settings are u16 and u64");
    assert!(QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 1) + 64 < AGI_COMMAND_BYTES_MAX, "QW_QUEUES fits one command");
    assert!(
        (QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 1) + LINE_BYTES_MAX) as u64 <= LINE_ANSWER_BYTES_MAX,
        "the client can read every answer"
    );
    assert!(
        QUESTIONS_AHEAD_MAX * (QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 3) + 512) < ANSWER_BUFFER_BYTES_MAX / 2,
        "the answers to all questions read ahead fit the answer buffer"
    );
    assert!(QUESTIONS_PER_TURN_MAX.is_multiple_of(QUESTIONS_AHEAD_MAX), "a turn is a whole number of read-aheads");
    assert!(LINE_BYTES_MAX < READ_BUFFER_BYTES_MAX, "a whole line fits the read buffer");
    assert!(AGI_ENVIRONMENT_BYTES_MAX < READ_BUFFER_BYTES_MAX, "a whole environment fits the read buffer");
    assert!(NETSTRING_BYTES_MAX < READ_BUFFER_BYTES_MAX, "a whole netstring fits the read buffer");
    assert!(EVAPI_WRITE_BYTES_MAX < 32_768, "Kamailio reads a whole write at once");
    assert!(EVAPI_BUSY_BYTES < ANSWER_BUFFER_BYTES_MAX, "a busy Kamailio gets `overload` before it is disconnected");
    assert!(QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 3) + 512 < EVAPI_WRITE_BYTES_MAX, "an answer fits one write");
    assert!(
        FREESWITCH_BLOCK_BYTES_MAX < ANSWER_BUFFER_BYTES_MAX,
        "the input of a peer takes less memory than its answers"
    );
    assert!(ID_BYTES_MAX <= VALUE_BYTES_MAX, "every id fits a value");
    assert!(LINK_PATTERN_BYTES_MAX + NUMBER_DIGITS_MAX <= AMI_VALUE_BYTES_MAX, "every interface fits a value of AMI");
    assert!(AMI_USERNAME_BYTES_MAX <= AMI_VALUE_BYTES_MAX, "every user name fits a value of AMI");
    assert!(AMI_LINE_BYTES_MAX < AMI_MESSAGE_BYTES_MAX, "a whole line fits a message");
    assert!(LINK_RECONNECT_PAUSE_MIN.as_nanos() < LINK_RECONNECT_PAUSE_MAX.as_nanos(), "pauses grow");
    assert!(
        QUEUES_PER_USER_MAX * (NUMBER_DIGITS_MAX + 2) + 24 * VALUE_BYTES_MAX < AUDIT_RECORD_BYTES_MAX,
        "every decision fits an audit record"
    );
    assert!(AUDIT_RECORD_BYTES_MAX < AUDIT_BUFFER_BYTES_MAX, "a whole record fits the buffer");
    assert!(
        SELF_TEST_INTERVAL.as_millis() * 4 < SELF_TEST_AGE_MAX.as_millis(),
        "three late self tests do not make the sidecar unhealthy"
    );
    assert!(AUDIT_ERRORS_PER_PEER_MAX < AUDIT_ERRORS_MAX, "one peer does not use up the errors of the audit log");
    assert!(LOG_ERRORS_PER_PEER_MAX < LOG_ERRORS_MAX, "the errors of one peer do not use up the log");
    assert!(REFUSALS_AT_ONCE_MAX < CONNECTIONS_DEFAULT, "refusing connections takes less memory than serving them");
};
