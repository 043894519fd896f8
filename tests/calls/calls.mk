# SPDX-License-Identifier: MIT
# The tests that take RWF_NOWAIT and futex_waitv away, and the one that stops a thread as it accepts.
$(BUILD)/tests/test_io $(BUILD)/tests/test_futex_wait: private override LDFLAGS += -Wl,--wrap=syscall
$(BUILD)/tests/test_accept: private override LDFLAGS += -Wl,--wrap=accept4

# The test that stands between the library and libc's conditions, and that stops a cancel (gate.h).
$(BUILD)/tests/test_cond: private override LDFLAGS += -Wl,--wrap=syscall,--wrap=ioctl,--wrap=timerfd_settime \
	-Wl,--wrap=pthread_cond_clockwait,--wrap=pthread_cond_timedwait,--wrap=pthread_cond_signal

# The test that stops a cancel while calls wait.
$(BUILD)/tests/test_call: private override LDFLAGS += -Wl,--wrap=syscall,--wrap=ioctl,--wrap=timerfd_settime
