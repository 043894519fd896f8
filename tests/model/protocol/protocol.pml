/* SPDX-License-Identifier: MIT */
/*
 * The protocol, function by function as in src/core and src/dispatch, so that both can be read side by side. Functions
 * are without ctxfdi_, flags without CTX_:
 *
 *   lock.pml     lock.h, lock.c   swap_word, change_flags, lock, lock_live, unlock, await_unlock, await_walk
 *   wait.pml     wait.c           await_done; wait_for is ctxfd_wait
 *   done.pml     done.c           signal_done, close_done_fd, published_fd
 *                look.c           done_fd is ctxfd_done_fd
 *   cancel.pml   look.c           deadline_passed, look; err is ctxfd_err
 *                cancel.c         announce, mark, commit, walk; cancel is ctxfd_cancel_cause
 *   shard.pml    shard.h, shard.c list_owner, split_children, lock_shard, last_shard, leave_shards
 *                own.c            claim_shards, orphan_shards; drop_shard is drop, of a shard
 *   tree.pml     tree.c           count_on, link_child, lock_list, adopt, inherit_end; derive, with_deadline and merge
 *                                 are ctxfd_with_cancel, ctxfd_with_deadline and ctxfd_merge
 *                own.c            ref, drop, own, push, leave_list, dispose_all, dispose, dispose_live; unref is
 *                                 ctxfd_unref. dispose_one and dispose_shard are detach_node and detach_shard, with the
 *                                 discarding
 *                cancel.c         close is ctxfd_close
 *   listed.pml   idle.c           idle_rings, forget_listed is forget_idle; touch_idle is ctxfd_touch
 *                grace.c          begin_grace; forget_listed is forget_grace
 *                dispatcher.c     end_after
 *   after.pml    after.c          set_expiry, forget_expiry; after_func and after_stop are
 *                                 ctxfd_after_func and ctxfd_after_stop. What a function does, FN, is the scenario's.
 *                                 add_due is after_funcs_ended
 *                round.c          free_after, run_after; expire_after_funcs is expire, with hold_expired and end_hooks
 *                                 of cancel.c; dispatcher is a round, and so is ending, with grace_rings
 *                cancel.c         dispatch is tell_hooks
 *
 * machine.pml is what they run on. The C functions' parameters that only carry values along are left out, and what a
 * function returns is in the register that its comment names: an inline of Promela has no result.
 *
 * Not here: values, background and todo, more than one dispatcher, done fds across a fork, sources, the times of idle
 * timeouts and graces, time limits of a sleep, ctxfd_cause (it asks as err does), after-funcs that stop themselves, and a
 * kernel that refuses SET_TICKS.
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
#include "listed.pml"
#include "after.pml"
