/* SPDX-License-Identifier: MIT */
/*
 * What must hold of contexts that several threads work on, whatever the order in which they come to it.
 *
 * Every context has a shadow, which says how it was made and what was done to it and seen of it, and lives until the
 * script's end, longer than the context. Before a thread asks the library about a context it reads in the shadows what
 * is known of its ancestors; the answer must follow from that:
 *
 *   - an ancestor, or itself, was seen done, or a cancel of one has returned: it is done, and its fd readable;
 *   - its fd is readable if and only if it is done, both ways;
 *   - its deadline has passed: it is done;
 *   - done by a cancel: somebody has called one with this cause, on itself or an ancestor, and had it been seen live,
 *     before its deadline; what that thread wrote before is seen. Done by a deadline: one has passed, with this cause;
 *   - what was seen once never changes;
 *     Done by an idle timeout: it has passed since the last touch that somebody saw it live after;
 *   - a grace context is done by its time only when its parent is, at the time that it tells from then on, and that is
 *     not before its grace has passed since what ended its parent began;
 *   - at rest, when all threads have ended, it is done if and only if one of these is so.
 */
#ifndef SHADOW_H
#define SHADOW_H

#include <stdatomic.h>

#include "ctxfd.h"
#include "script.h"

#define MAX_SHADOWS 4096
#define MAX_CAUSES  4096
#define MAX_MAIL    8
#define MAX_ERRANDS 256
#define LEVERS      4
#define LOOPS       2                 /* dispatchers of the program's */
#define DISPATCHER  (1 + MAX_THREADS) /* as a thread */
#define UNIT        CTXFD_USEC

struct value {
	int key;
	_Atomic int destroyed;
};

/* Not atomic: fixed, written before others can know the shadow. */
struct shadow {
	struct ctxfd *ctx;
	struct shadow *parent, *second; /* second: of a merge */
	struct shadow *node;            /* whose err, fd and deadline it has: itself, but for values */
	enum what made;
	int64_t deadline;  /* the one in effect */
	int expiry;        /* the cause that comes with it */
	bool own_deadline; /* and that was given to this one */
	int lever;         /* what it watches; -1: nothing */
	int64_t timeout;   /* how long it may be idle; -1: it may */
	int64_t grace;     /* how long it outlives its parent, which does not end it; -1: it is no grace context */
	int64_t returned;  /* when the call that made a grace context had returned */
	struct value value;
	uint64_t born; /* the parent's verdict, if it was seen before this was made; as `seen` */

	_Atomic uint64_t seen;        /* err and cause, once somebody has seen it done; 0 before */
	_Atomic bool lived;           /* somebody has seen it live */
	_Atomic bool cancelled;       /* a cancel of it has returned */
	_Atomic int64_t cancel_began; /* the first that gave no cause; 0: none */
	_Atomic int64_t end_began;    /* the first of all; INT64_MAX: none */
	_Atomic int fd;               /* -1: nobody has it yet */
	_Atomic int64_t touched;      /* a touch began, after which it was live; or its constructor; */
	_Atomic int64_t untouched;    /* and when the last of all touches had returned */
	_Atomic int64_t told;         /* when it will end, as it told somebody; 0: nobody */
};

/* An after-func. Its context may be gone, once it has run. */
struct errand {
	struct shadow *on;
	struct ctxfd_after *handle; /* NULL: it frees itself, */
	bool held;                  /* and we have a reference on its context */
	int does, depth;            /* which list of the script, 0: none; errands have errands, up to a depth */
	int began;                  /* before it was registered, as counted by world.ticks; */
	_Atomic int registered;     /* and after, if its context was live then; else 0 */
	_Atomic int ran, ended;
	_Atomic bool stopping, stopped;
};

/* What a thread has, or an errand; of contexts one reference each. */
struct hands {
	struct shadow *has[MAX_VARS];
	struct errand *handle[MAX_MAIL]; /* to stop */
	struct errand *in;               /* NULL: it is a thread's */
};

/* A dispatcher of the program's. */
struct loop {
	struct ctxfd_dispatcher *dispatcher;
	int edges; /* a set that watches its fd, edge-triggered */
};

struct world {
	struct shadow shadows[MAX_SHADOWS]; /* the first two: background and todo */
	_Atomic int made;
	struct {
		struct shadow *target;
		int64_t began;
	} causes[MAX_CAUSES]; /* of cancels, by number; written before that cancel is called */
	_Atomic int caused;
	int64_t start;

	const struct script *script;
	bool bold;                               /* wait for what the script does not promise */
	bool drop_early;                         /* threads give up what they have, not the end */
	struct hands hands[1 + MAX_THREADS];     /* [0] the world's */
	_Atomic(struct shadow *) mail[MAX_MAIL]; /* with a reference */
	struct shadow *promised[4];              /* with a reference */
	int promises;
	_Atomic int pulled[LEVERS]; /* 1: somebody is about to, 2: somebody has */
	struct loop loops[LOOPS];
	struct errand errands[MAX_ERRANDS];
	_Atomic int errands_made, ticks;
	_Atomic int at[1 + MAX_THREADS]; /* which operation each is at */

	/* For searches upwards, each thread its own. */
	uint32_t stamp[2 + MAX_THREADS][MAX_SHADOWS], stamps[2 + MAX_THREADS];
	struct shadow *stack[2 + MAX_THREADS][MAX_SHADOWS];
};

/* ---- What the storm runs on, real threads or simulated ones ------------------------------------------------------ */

void broken(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn)); /* a claim does not hold */
bool shows(int fd);                                                                   /* polls readable now */
void pass_until(int64_t at);
bool let_dispatch(int tries); /* gives the library's thread some time; false: it has had enough */
int who(void);                /* the number of the thread that calls */
void end_thread(void);        /* the library's, from a function that it runs. Does not return */
int watch_edges(int fd);      /* a set that tells of fd's edges; a close by forget_edges */
bool take_edge(int set);      /* whether there was one that nobody has taken */
void forget_edges(int set);
int lever_fd(int lever);    /* an eventfd, for contexts to watch */
void pull_lever(int lever); /* makes it readable, for good */
int refusals(void);         /* how often the library did not get memory, a descriptor or a thread: it may fail then */

/* ---- Making ------------------------------------------------------------------------------------------------------ */

/*
 * All of them: t is the thread that calls, and has a reference on what it hands in. NULL when there is no room for
 * more, or the library has failed.
 */
struct shadow *make_shadow(struct world *w, int t, const struct op *op, struct shadow *a, struct shadow *b);

/* ---- Doing and asking -------------------------------------------------------------------------------------------- */

void cancel_shadow(struct world *w, int t, struct shadow *s, bool with_cause, bool close);
void touch_shadow(struct world *w, int t, struct shadow *s);
void look(struct world *w, int t, struct shadow *s);
void ask_fd(struct world *w, int t, struct shadow *s);
void ask_value(struct world *w, int t, struct shadow *s, int key);
void wait_shadow(struct world *w, int t, struct shadow *s);
void sleep_shadow(struct world *w, int t, struct shadow *s, int64_t ns);
void poll_shadow(struct world *w, int t, struct shadow *s, int64_t ns);
void look_at_rest(struct world *w, struct shadow *s);

/* Whether a call may fail so. `before`: the refusals when it was made. */
bool may_fail(int err, int before);

/* Whether it is known to be done, without asking the library. */
bool must_be_done(struct world *w, int t, struct shadow *s);

/* At rest: whether it must end, as soon as its dispatcher comes to it, because nobody touches it. */
bool must_be_idle(struct shadow *s);
bool must_be_over(struct shadow *s); /* the same, because its grace is over */

/* After-funcs: stopping one that there is none of does nothing. */
void begin_errands(struct world *w);
void add_errand(struct world *w, struct hands *h, struct shadow *s, const struct op *op);
void stop_errand(struct world *w, struct hands *h, int handle);
void end_errands(struct world *w); /* at rest: those that had to run have, those that must not have not */

/* The program's dispatchers: runs n, which the library's own thread does for 0; and only if there is an edge. */
void begin_loops(struct world *w);
void serve(struct world *w, int n);
void serve_edge(struct world *w, int n);
void end_loops(struct world *w);

/* At rest: until the dispatchers, whose edges are all that we go by, have done what they have to, and *what says so. */
void let_run(struct world *w, _Atomic int *what);
void let_end(struct world *w, struct shadow *s);

/* Whether an ancestor or s itself is in `set`. */
bool below_any(struct world *w, int t, struct shadow *s, struct shadow *const *set, int n);

/* ---- Playing a script -------------------------------------------------------------------------------------------- */

/* On one thread: makes what list 0 says, and hands it out. What several threads name, each has its own reference on. */
void begin_world(struct world *w, const struct script *script);

/* On each thread, 1 to script->threads. */
void play_list(struct world *w, int t);

/* What an after-func does, on the thread that calls it. */
void play_errand(struct world *w, struct errand *e);

/* On one thread, after all others: looks at everything, gives it up, sees that values are destroyed. */
void end_world(struct world *w);

/* What each thread did last. */
void print_last(struct world *w, int n);

#endif
