/* SPDX-License-Identifier: MIT */
/*
 * test_halfway.c for merges: a cancel that came by one parent is halfway through when another comes by the other, or
 * all is given up.
 */
#include "gate.h"

struct couple {
	struct ctxfd *parent[2], *merged, *child, *gate;
};

static void make_couple(struct couple *c)
{
	for (int i = 0; i < 2; i++)
		c->parent[i] = child_of(ctxfd_background(), false);
	c->merged = ctxfd_merge(c->parent[0], c->parent[1]);
	assert_non_null(c->merged);
	c->child = child_of(c->merged, false);
	c->gate = child_of(c->merged, false);
}

/* A cancel that came by one parent stands below the merge, and one comes by the other parent. */
static void a_merge_is_waited_for_from_both_sides(void **state)
{
	for (int way = 0; way < 2; way++) {
		struct couple c;
		struct caller second = { 0 };
		struct thread *thread;
		struct ctxfd *born;
		struct stop s;
		int fd;

		make_couple(&c);
		fd = ctxfd_done_fd(c.merged);
		stop_at(&s, c.parent[way], -EPIPE, c.gate);
		assert_int_equal(ctxfd_err(c.parent[way]), 0);
		assert_int_equal(ctxfd_err(c.merged), 0);
		assert_not_readable(fd);
		born = child_of(c.merged, false);
		assert_ended(born, -EPIPE);
		second.ctx = c.parent[1 - way];
		thread = thread_start(call_cancel, &second);
		thread_wait_asleep_in(thread, SYS_futex);
		assert_int_equal(ctxfd_err(c.parent[1 - way]), 0);
		go_on(&s);
		thread_join(thread);
		assert_readable(fd);
		assert_ended(c.parent[way], -EPIPE);
		assert_ended(c.parent[1 - way], -ENOENT);
		assert_ended(c.merged, -EPIPE);
		assert_ended(c.child, -EPIPE);
		ctxfd_unref(born);
		ctxfd_unref(c.gate);
		ctxfd_unref(c.child);
		ctxfd_unref(c.merged);
		ctxfd_unref(c.parent[0]);
		ctxfd_unref(c.parent[1]);
	}
}

static void *give_up_the_couple(void *arg)
{
	struct couple *c = arg;

	ctxfd_unref(c->merged);
	ctxfd_unref(c->parent[0]);
	ctxfd_unref(c->child);
	ctxfd_unref(c->gate);
	return NULL;
}

/*
 * All but the parent by which the cancel came is given up meanwhile: when it stands below the merge, or has come back
 * to the merge itself, which is done then, and is still to go on from there.
 */
static void a_merge_leaves_both_parents_after_the_cancel(void **state)
{
	spoil_freed_memory(true);
	for (int way = 0; way < 4; way++) {
		long before = live_allocations();
		struct couple c;
		struct ctxfd *top;
		struct thread *thread;
		struct stop s;

		make_couple(&c);
		top = c.parent[way % 2];
		c.parent[0] = c.parent[1 - way % 2];
		stop_at(&s, top, -EPIPE, way / 2 ? c.merged : c.gate);
		thread = thread_start(give_up_the_couple, &c);
		thread_wait_asleep(thread);
		go_on(&s);
		thread_join(thread);
		assert_ended(top, -EPIPE);
		assert_int_equal(live_allocations(), before + 1);
		ctxfd_unref(top);
	}
	spoil_freed_memory(false);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_merge_is_waited_for_from_both_sides),
		cmocka_unit_test(a_merge_leaves_both_parents_after_the_cancel),
	};
	return run_all(tests);
}
