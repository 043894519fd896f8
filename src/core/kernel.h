/* SPDX-License-Identifier: MIT */
/* What several files need of the kernel, and some libcs and older headers have no name for. */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424 /* everywhere but on Alpha and MIPS */
#endif

/* For waitid: glibc's P_PIDFD. */
#define PIDFD ((idtype_t)3)

#endif
