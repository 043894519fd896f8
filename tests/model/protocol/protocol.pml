/* SPDX-License-Identifier: MIT */
/*
 * The protocol, function by function as in src/core and src/dispatch, so that both can be read side by side. Names are
 * without ctxfdi_:
 *
 *   lock.pml     lock.h, lock.c   swap_word, change_flags, lock, lock_live, unlock, await_unlock, await_walk
 *   wait.pml     wait.c           await_done; wait_for is ctxfd_wait
 *   done.pml     done.c           signal_done, close_done_fd, published_fd; done_fd is ctxfd_done_fd
 *   cancel.pml   cancel.c         deadline_passed, settle, announce, mark, commit, walk;
 *                                 err and cancel are ctxfd_err and ctxfd_cancel_cause
 *   shard.pml    shard.h, shard.c list_owner, split_children, lock_shard, claim_shards, orphan_shards, last_shard,
 *                                 leave_shards; drop_shard is drop in tree.c, of a shard
 *   tree.pml     tree.c           ref, count_on, link_child, lock_list, adopt, inherit_end, drop, own, push,
 *                                 leave_list, reap_one, reap_shard, reap_list, reap, reap_live; derive,
 *                                 with_deadline, merge, unref and close are ctxfd_with_cancel,
 *                                 ctxfd_with_deadline, ctxfd_merge, ctxfd_unref and ctxfd_close. reap_one and
 *                                 reap_shard are detach_node and detach_shard, with the discarding
 *   after.pml    after.c          set_expiry, forget_expiry, free_after, run_after; after_func and after_stop are
 *                                 ctxfd_after_func and ctxfd_after_stop. What a function does, FN, is the scenario's.
 *                                 add_due is after_funcs_ended; expire_after_funcs is expire, with hold_expired and
 *                                 end_hooks of cancel.c
 *                cancel.c         dispatch is tell_hooks
 *                dispatcher.c     dispatcher is a round
 *
 * machine.pml is what they run on. The C functions' parameters that only carry values along are left out, and what a
 * function returns is in the register that its comment names: an inline of Promela has no result.
 *
 * Not here: values, background and todo, more than one dispatcher, done fds across a fork, sources and what else is
 * LISTED, time limits of a sleep, ctxfd_cause (it asks as err does), after-funcs that stop themselves, and a kernel
 * that refuses SET_TICKS.
 *
 * Each #if in capitals breaks one rule; tests/model/run lists them, and the scenario that shows what follows.
 */
#include "machine.pml"
#include "lock.pml"
#include "wait.pml"
#include "done.pml"
#include "cancel.pml"
#include "shard.pml"
#include "tree.pml"
#include "after.pml"
