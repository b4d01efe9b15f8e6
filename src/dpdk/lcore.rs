//! Threads that poll, known to the EAL so that each has its own cache in front of the packet buffer pool. Pinning to
//! a CPU is not done here.

use std::marker::PhantomData;

use super::Errno;

/// A thread could not be made known to the EAL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LcoreError {
    /// The EAL refused.
    #[error("the EAL takes no further thread: {0} (it knows at most 128, RTE_MAX_LCORE)")]
    Refused(Errno),
}

/// The calling thread is known to the EAL until this is dropped, which must be on the same thread.
#[derive(Debug)]
pub struct RegisteredThread {
    stays_on_its_thread: PhantomData<*const ()>,
}

/// Makes the calling thread known to the EAL. Threads that are not may use pools and ports too, only slower.
pub fn register_current_thread() -> Result<RegisteredThread, LcoreError> {
    // SAFETY: no precondition; fails where the EAL is not up or the thread is registered already.
    let result = unsafe { dpdk_sys::rte_thread_register() };
    if result < 0 {
        return Err(LcoreError::Refused(Errno::last()));
    }
    Ok(RegisteredThread { stays_on_its_thread: PhantomData })
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        // SAFETY: the guard is not Send, so this is the thread that was registered.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}
