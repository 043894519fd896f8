// SPDX-License-Identifier: MIT
// std::stop_source of C++20. It has no tree: a child is a source that a callback on its parent's token stops.
#include "bench.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <malloc.h>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <unistd.h>
#include <vector>

namespace
{

struct child {
	struct stop {
		std::stop_source &source;
		void operator()() const
		{
			source.request_stop();
		}
	};

	std::stop_source source;
	std::stop_callback<stop> on_parent;

	explicit child(const std::stop_source &parent) : on_parent(parent.get_token(), stop{ source })
	{
	}
};

void make_one(const std::stop_source &parent)
{
	child c(parent);

	c.source.request_stop();
}

void check(const std::stop_source &parent)
{
	child c(parent);

	bench_check(!c.source.stop_requested());
	c.source.request_stop();
	bench_check(c.source.stop_requested() && !parent.stop_requested());
}

void make_plain(struct bench *b)
{
	std::stop_source parent;

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			make_one(parent);
		bench_stop(b, b->n);
		check(parent);
	}
}
BENCH("stop", "make/plain", make_plain)
BENCH("stop", "make/apart", make_plain)

// The callee takes the token by reference, as err takes its pointer.
__attribute__((noinline)) bool ask(const std::stop_token &token)
{
	return token.stop_requested();
}

void err(struct bench *b, bool stopped)
{
	std::stop_source source;
	std::stop_token token = source.get_token();

	if (stopped)
		source.request_stop();
	while (bench_more(b)) {
		bool wrong = false;

		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++)
			wrong |= ask(token) != stopped;
		bench_stop(b, b->n);
		bench_check(!wrong);
	}
}

void err_live(struct bench *b)
{
	err(b, false);
}
BENCH("stop", "err/live", err_live)

void err_done(struct bench *b)
{
	err(b, true);
}
BENCH("stop", "err/done", err_done)
BENCH("stop", "go/check-canceled-err", err_done)

void ask_in_thread(void *token, int, long n)
{
	for (long i = 0; i < n; i++)
		bench_use(ask(*static_cast<std::stop_token *>(token)));
}

void err_all(struct bench *b)
{
	std::stop_source source;
	std::stop_token token = source.get_token();

	bench_parallel(b, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)), ask_in_thread, &token);
}
BENCH("stop", "err-all-cpus/live", err_all)

constexpr long nodes = 2000;

long trees(const struct bench *b)
{
	return b->smoke || b->arg >= nodes ? 1 : nodes / b->arg;
}

void children(struct bench *b)
{
	const long count = trees(b);

	while (bench_more(b)) {
		std::vector<std::stop_source> roots(static_cast<size_t>(count));
		std::vector<std::unique_ptr<child>> all;

		for (auto &root : roots)
			for (long i = 0; i < b->arg; i++)
				all.push_back(std::make_unique<child>(root));
		bench_start(b);
		for (auto &root : roots)
			root.request_stop();
		bench_stop(b, count * b->arg);
		for (auto &c : all)
			bench_check(c->source.stop_requested());
	}
}
BENCH("stop", "cancel/children", children)

void chain(struct bench *b)
{
	const long count = trees(b);

	while (bench_more(b)) {
		std::vector<std::stop_source> roots(static_cast<size_t>(count));
		std::deque<child> all;

		for (auto &root : roots)
			for (long i = 0; i < b->arg; i++)
				all.emplace_back(i ? all.back().source : root);
		bench_start(b);
		for (auto &root : roots)
			root.request_stop();
		bench_stop(b, count * b->arg);
		for (auto &c : all)
			bench_check(c.source.stop_requested());
	}
}
BENCH("stop", "cancel/chain", chain)

struct waiting {
	std::stop_source source;
	std::mutex mutex;
	std::condition_variable_any changed;
};

void wait_stop(void *arg)
{
	auto *w = static_cast<waiting *>(arg);
	std::unique_lock lock(w->mutex);

	w->changed.wait(lock, w->source.get_token(), [] { return false; });
	bench_check(w->source.stop_requested());
}

void wake(struct bench *b)
{
	struct bench_partner *p = bench_partner_new(wait_stop);

	while (bench_more(b)) {
		waiting w;

		bench_partner_arm(p, &w);
		int64_t signalled = bench_now();

		w.source.request_stop();
		int64_t woken = bench_partner_woken(p);

		if (woken >= 0)
			bench_sample(b, static_cast<double>(woken - signalled));
		else
			bench_miss(b);
	}
	bench_partner_free(p);
}
BENCH("stop", "wake/wait", wake)
BENCH("stop", "wake-awake/wait", wake)

struct parents {
	std::vector<std::stop_source *> of;
};

void make_in_thread(void *arg, int thread, long n)
{
	std::stop_source &parent = *static_cast<parents *>(arg)->of[static_cast<size_t>(thread)];

	for (long i = 0; i < n; i++)
		make_one(parent);
}

void threads(struct bench *b, bool shared)
{
	std::deque<std::stop_source> sources;
	std::deque<std::vector<char>> apart; // two states in one cache line would not be separate
	parents p;

	for (long i = 0; i < b->arg; i++) {
		sources.emplace_back();
		apart.emplace_back(256);
		p.of.push_back(shared ? &sources.front() : &sources.back());
	}
	bench_parallel(b, static_cast<int>(b->arg), make_in_thread, &p);
	check(sources[0]);
}

void threads_shared(struct bench *b)
{
	threads(b, true);
}
BENCH("stop", "threads/shared", threads_shared)

void threads_separate(struct bench *b)
{
	threads(b, false);
}
BENCH("stop", "threads/separate", threads_separate)

void callback(struct bench *b)
{
	std::stop_source source;
	bool ran = false;
	auto fn = [&ran] { ran = true; };

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			std::stop_callback c(source.get_token(), fn);

			bench_use(&c);
		}
		bench_stop(b, b->n);
		bench_check(!ran);
	}
	std::stop_callback c(source.get_token(), fn);

	source.request_stop();
	bench_check(ran);
}
BENCH("stop", "after/stop", callback)

// One that is no part of its caller's frame and has a type that others can name, as a handle has.
void callback_on_the_heap(struct bench *b)
{
	using handle = std::unique_ptr<std::stop_callback<std::function<void()>>>;
	std::stop_source source;
	bool ran = false;
	auto fn = [&ran] { ran = true; };

	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			handle c = std::make_unique<handle::element_type>(source.get_token(), fn);

			bench_use(c.get());
		}
		bench_stop(b, b->n);
		bench_check(!ran);
	}
	handle c = std::make_unique<handle::element_type>(source.get_token(), fn);

	source.request_stop();
	bench_check(ran);
}
BENCH("stop", "after/stop-kept", callback_on_the_heap)

// What bench/request.c does. There are no deadlines: a map of those to come, for a thread that would stop what is due.
struct request {
	using deadlines = std::multimap<int64_t, std::stop_source>;
	struct count {
		int &calls;
		void operator()() const
		{
			calls++;
		}
	};

	static inline std::mutex lock;
	static inline deadlines due;

	child own;
	std::stop_callback<count> after;
	deadlines::iterator deadline;

	request(const std::stop_source &server, int &calls) : own(server), after(own.source.get_token(), count{ calls })
	{
		std::lock_guard guard(lock);

		deadline = due.emplace_hint(due.end(), bench_now() + INT64_C(60000000000), own.source);
	}

	~request()
	{
		std::lock_guard guard(lock);

		due.erase(deadline);
	}
};

void request_life(struct bench *b)
{
	std::stop_source server;
	std::deque<std::optional<request>> all(static_cast<size_t>(b->arg));
	size_t oldest = 0;
	bool live = true;
	int calls = 0;

	for (auto &r : all)
		r.emplace(server, calls);
	while (bench_more(b)) {
		bench_start(b);
		for (long i = 0, count = b->n; i < count; i++) {
			auto &r = all[oldest];

			for (int j = 0; j < 3; j++)
				live &= !r->own.source.stop_requested();
			r.emplace(server, calls);
			if (++oldest == all.size())
				oldest = 0;
		}
		bench_stop(b, b->n);
		bench_check(live && calls == 0);
	}
}
BENCH("stop", "request", request_life)

void bytes(struct bench *b)
{
	const size_t n = b->smoke ? 10000 : 1000000;
	std::stop_source parent;
	std::vector<std::unique_ptr<child>> all(n);
	struct mallinfo2 before = mallinfo2();

	for (auto &c : all)
		c = std::make_unique<child>(parent);
	struct mallinfo2 after = mallinfo2();

	bench_sample(b, static_cast<double>(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) /
	                        static_cast<double>(n));
	parent.request_stop();
	for (auto &c : all)
		bench_check(c->source.stop_requested());
}
BENCH("stop", "bytes/plain", bytes)

} // namespace
