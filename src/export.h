/* SPDX-License-Identifier: MIT */
/*
 * Compiled in front of every source of the libraries, which hide what they define (-fvisibility=hidden): the functions
 * of the public headers, and nothing else, can be seen from outside.
 */
#pragma GCC visibility push(default)
#include "ctxfd.h"
#include "ctxfd_group.h"
#include "ctxfd_net.h"
#include "ctxfd_process.h"
#ifdef CTXFD_BUILDS_URING
#include "ctxfd_uring.h"
#endif
#pragma GCC visibility pop
