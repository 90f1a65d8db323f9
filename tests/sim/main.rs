//! Tests that need nothing but this machine.

mod embedded_broker;
