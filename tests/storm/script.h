/* SPDX-License-Identifier: MIT */
/*
 * The language that the storms speak: a script is a few lists of operations on contexts, one to begin with and one for
 * each thread. Scripts are written by hand (the known races), made at random, read from a fuzzer's bytes, and printed
 * when they fail, so that what was printed can be played again.
 *
 *     new a -; new b a | cancel a | fd b; look b
 *
 * makes a child of background, and one below it; then one thread cancels the upper while another asks for the lower
 * one's fd. Contexts have one letter; `-` is background and `=` is todo. Words and what they take: see `words` in
 * script.c. Times are in microseconds after the beginning.
 *
 * What an after-func does comes last, behind a colon for each errand:
 *
 *     new a -; after a 1 1 | cancel a | free a; stop 1 : new b a; post b 0; after a 2; stop 2
 *
 * is errand 1. There `a` is the after-func's own context, which it can neither give up nor lose; all other letters, and
 * all handles, are the errand's own.
 */
#ifndef SCRIPT_H
#define SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_THREADS 4
#define MAX_OPS     512
#define MAX_VARS    54 /* - = a..z A..Z */
#define ERRANDS     2
#define LISTS       (1 + MAX_THREADS + ERRANDS)

enum what {
	OP_NEW,
	OP_DEADLINE,
	OP_TIMEOUT,
	OP_VALUE,
	OP_WITHOUT,
	OP_MERGE,
	OP_REF,
	OP_FREE,
	OP_CANCEL,
	OP_CAUSE,
	OP_CLOSE,
	OP_FD,
	OP_LOOK,
	OP_WAIT,
	OP_SLEEP,
	OP_POLL,
	OP_GET,
	OP_CLOCK,
	OP_POST,
	OP_TAKE,
	OP_PROMISE,
	OP_SPLIT,
	OP_AFTER,
	OP_STOP,
	OP_SERVE,
	OP_WATCH,
	OP_PULL,
	OP_READ,
	OP_WRITE,
	OP_TELL,
	OP_NULLS,
	OP_LOOP,
	OP_EDGE,
	OP_IDLE,
	OP_TOUCH,
	OP_GRACE,
	OP_QUIT,
	WHATS
};

struct op {
	uint8_t what, x, a, b; /* x: what is made, or the first operand */
	int16_t n;
};

struct script {
	int threads;      /* 0: only the first list */
	int count[LISTS]; /* of each list: the first, the threads', the errands' */
	struct op ops[LISTS][MAX_OPS];
};

static inline int list_of_errand(int errand)
{
	return MAX_THREADS + errand;
}

/* Whether a list has that word. */
bool uses(const struct script *s, enum what what);

/* Whether an errand may say it: not what waits for others. */
bool fits_errand(enum what what);

/*
 * The operands of a word, in order: letters of "xabne". '>' in front of x: it is made, what was there is given up. e:
 * an errand, in b; it may be left out.
 */
const char *operands(enum what what);

/* False, after a message on stderr, if text is none. */
bool parse_script(struct script *s, const char *text);

/* At most size bytes, as snprintf. */
size_t print_script(const struct script *s, char *buf, size_t size);
size_t print_op(const struct op *op, char *buf, size_t size);

/* ---- Chance ------------------------------------------------------------------------------------------------------ */

struct chance {
	uint64_t state;
};

uint64_t draw(struct chance *c);
int below(struct chance *c, int n); /* 0 .. n-1 */

/* What a random script is made of. */
struct climate {
	int threads, setup, ops; /* how many operations at first, and of each thread */
	uint8_t weight[WHATS];   /* how often each word is used */
	int vars;                /* how many letters */
	int hot;                 /* out of 100 operands, how many are one of the first two letters */
	int longest;             /* times are up to this */
	int errand;              /* how many operations each errand has at most; 0: there are none */
};

void random_script(struct script *s, const struct climate *climate, struct chance *c);

/* What a fuzzer's bytes stand for: a script of list 0 alone, and how curious to be (see exact.h). Any bytes will do. */
void decode_script(struct script *s, int *curious, const uint8_t *bytes, size_t size);

/* Takes out whatever can go while `fails` goes on saying true. */
void shrink_script(struct script *s, bool (*fails)(const struct script *s, void *arg), void *arg);

#endif
