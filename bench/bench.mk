# SPDX-License-Identifier: MIT
# The benchmarks: bench/bench.h says what a row is and how to add one, bench/suite.py which there are. Needs python3.

BENCH := $(BUILD)/bench
# Aligned: where a loop of five instructions happens to fall is worth a third of its time.
BENCH_CFLAGS ?= -O2 -g -falign-functions=64 -falign-loops=32
BENCH_NEEDS := cc pkg-config python3
BENCH_WARN := $(WERROR) -Wall -Wextra -Wpedantic -Wshadow -Wconversion
BENCH_FLAGS = $(BENCH_CFLAGS) $(BENCH_WARN) -Iinclude -Ibench -pthread

# Older valgrinds cannot read what newer clangs say of a program for debuggers.
ifneq ($(findstring clang,$(CC)),)
BENCH_LINK := -Wl,--strip-debug
endif

# The library's rows and the floor's are one program; those that need libctxfd-uring, and each peer, are one each.
BENCH_ROWS := $(filter-out bench/subject.c bench/threads.c bench/uring%,$(wildcard bench/*.c))
BENCH_RUNTIME := $(BENCH)/obj/subject.o $(BENCH)/obj/threads.o
BENCH_OBJ := $(patsubst bench/%.c,$(BENCH)/obj/%.o,$(BENCH_ROWS))
BENCH_SUBJECTS := $(BENCH)/subjects/rows

ifeq ($(shell $(PKG_CONFIG) --exists liburing 2>/dev/null && echo yes),yes)
BENCH_URING_CFLAGS := -DHAVE_LIBURING $(shell $(PKG_CONFIG) --cflags liburing)
BENCH_URING_LIBS := $(shell $(PKG_CONFIG) --libs liburing)
BENCH_URING_OBJ := $(patsubst bench/%.c,$(BENCH)/obj/%.o,$(wildcard bench/uring*.c))
ifneq ($(BENCH_URING_OBJ),)
BENCH_SUBJECTS += $(BENCH)/subjects/uring
endif
endif

# Servers, each with time limits by hand and with contexts: see bench/servers.py.
BENCH_SERVERS := $(foreach s,epoll threads,$(BENCH)/servers/$(s)-by-hand $(BENCH)/servers/$(s)-contexts)
ifeq ($(shell $(PKG_CONFIG) --exists liburing 2>/dev/null && echo yes),yes)
BENCH_SERVERS += $(BENCH)/servers/uring-by-hand $(BENCH)/servers/uring-contexts
endif

# A peer that is not installed is not built, and the run says which those are.
ifeq ($(shell echo '\#include <stop_token>' | $(CXX) -std=c++20 -E -x c++ - >/dev/null 2>&1 && echo yes),yes)
BENCH_PEERS += $(BENCH)/subjects/stop
endif
ifeq ($(shell $(PKG_CONFIG) --exists gio-2.0 2>/dev/null && echo yes),yes)
BENCH_PEERS += $(BENCH)/subjects/glib
endif
ifneq ($(wildcard /usr/include/nsync_note.h /usr/local/include/nsync_note.h),)
BENCH_PEERS += $(BENCH)/subjects/nsync
endif
ifeq ($(shell $(PKG_CONFIG) --exists libuv 2>/dev/null && echo yes),yes)
BENCH_PEERS += $(BENCH)/subjects/uv
endif
ifneq ($(shell command -v go 2>/dev/null),)
BENCH_PEERS += $(BENCH)/subjects/go
endif

$(BENCH)/obj/%.o: bench/%.c $(wildcard bench/*.h include/*.h)
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -std=gnu11 $(BENCH_FLAGS) $(BENCH_URING_CFLAGS) -c $< -o $@

$(BENCH)/subjects/rows: $(BENCH_OBJ) $(BENCH_RUNTIME) $(BUILD)/libctxfd.a
	@mkdir -p $(@D)
	$(call quiet,LD)$(CC) -pthread $^ $(BENCH_URING_LIBS) $(BENCH_LINK) -o $@

$(BENCH)/subjects/uring: $(BENCH_URING_OBJ) $(BENCH_RUNTIME) $(BUILD)/libctxfd-uring.a $(BUILD)/libctxfd.a
	@mkdir -p $(@D)
	$(call quiet,LD)$(CC) -pthread $^ $(BENCH_URING_LIBS) $(BENCH_LINK) -o $@

$(BENCH)/servers/%-by-hand: bench/servers/%.c bench/servers/http.h bench/servers/limits.h
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -std=gnu11 $(BENCH_FLAGS) $(BENCH_URING_CFLAGS) $< $(BENCH_URING_LIBS) $(BENCH_LINK) -o $@

$(BENCH)/servers/%-contexts: bench/servers/%.c bench/servers/http.h bench/servers/limits.h $(BUILD)/libctxfd.a $(filter %-uring.a,$(LIBS))
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -std=gnu11 -DCONTEXTS $(BENCH_FLAGS) $(BENCH_URING_CFLAGS) $< $(filter %-uring.a,$(LIBS)) $(BUILD)/libctxfd.a \
		$(BENCH_URING_LIBS) $(BENCH_LINK) -o $@

$(BENCH)/subjects/stop: bench/peers/stop.cc $(BENCH_RUNTIME) bench/bench.h
	@mkdir -p $(@D)
	$(call quiet,CXX)$(CXX) -std=c++20 $(BENCH_CFLAGS) -Wall -Wextra -Wshadow -Ibench -pthread $< $(BENCH_RUNTIME) $(BENCH_LINK) -o $@

$(BENCH)/subjects/glib: bench/peers/glib.c $(BENCH_RUNTIME) bench/bench.h
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -std=gnu11 $(BENCH_CFLAGS) -Wall -Wextra -Wshadow -Ibench -pthread $(shell $(PKG_CONFIG) --cflags gio-2.0) $< \
		$(BENCH_RUNTIME) $(shell $(PKG_CONFIG) --libs gio-2.0) $(BENCH_LINK) -o $@

$(BENCH)/subjects/nsync: bench/peers/nsync.c $(BENCH_RUNTIME) bench/bench.h
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -std=gnu11 $(BENCH_CFLAGS) -Wall -Wextra -Wshadow -Ibench -pthread $< $(BENCH_RUNTIME) -lnsync $(BENCH_LINK) -o $@

$(BENCH)/subjects/uv: bench/peers/uv.c $(BENCH_RUNTIME) bench/bench.h
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -std=gnu11 $(BENCH_CFLAGS) -Wall -Wextra -Wshadow -Ibench -pthread $(shell $(PKG_CONFIG) --cflags libuv) $< \
		$(BENCH_RUNTIME) $(shell $(PKG_CONFIG) --libs libuv) $(BENCH_LINK) -o $@

$(BENCH)/subjects/go: $(wildcard bench/peers/go/*.go)
	@mkdir -p $(@D)
	$(call quiet,GO)GO111MODULE=off GOCACHE=$(abspath $(BENCH))/go-cache go build -o $@ ./bench/peers/go

# The second make finds what the first may have had to install.
.PHONY: bench bench-peers bench-servers bench-smoke bench-deps bench-run bench-run-peers bench-run-servers bench-run-smoke
bench: ## the benchmarks without peers: at most three minutes, one table
	@$(DEPS) $(BENCH_NEEDS)
	+@$(AGAIN) bench-run

bench-peers: bench-deps ## the benchmarks with the peers, which it installs
	@$(DEPS) $(BENCH_NEEDS)
	+@$(AGAIN) bench-run-peers

bench-servers: bench-deps ## servers with contexts by the same without, under wrk: some four minutes
	@$(DEPS) $(BENCH_NEEDS)
	+@$(AGAIN) bench-run-servers

bench-smoke: ## each row of each benchmark for a moment: does it work?
	@$(DEPS) $(BENCH_NEEDS)
	+@$(CHECK) bench-run-smoke

bench-deps: ## installs the peers of the benchmarks, and what counts and draws
	@CC='$(CC)' CXX='$(CXX)' sh bench/deps

bench-run: $(BENCH_SUBJECTS)
	@bench/run --out $(BENCH) $^

bench-run-peers: $(BENCH_SUBJECTS) $(BENCH_PEERS) | $(BENCH_SERVERS)
	@bench/run --peers --servers $(BENCH)/servers --out $(BENCH) $^

bench-run-servers: $(BENCH_SERVERS)
	@bench/run --only server/ --servers $(BENCH)/servers --out $(BENCH)/served

bench-run-smoke: $(BENCH_SUBJECTS) $(BENCH_PEERS) | $(BENCH_SERVERS)
	@bench/run --smoke --servers $(BENCH)/servers --out $(BENCH)/smoke $^
