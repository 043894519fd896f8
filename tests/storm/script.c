/* SPDX-License-Identifier: MIT */
/* Reading, printing, making up and shrinking scripts. No threads, no library. */
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *word, *takes;
} words[WHATS] = {
	[OP_NEW] = { "new", ">xa" },            /* x = with_cancel(a) */
	[OP_DEADLINE] = { "deadline", ">xan" }, /* n after the beginning; 0 .. 3 see odd_time in shadow.c */
	[OP_TIMEOUT] = { "timeout", ">xan" },
	[OP_VALUE] = { "value", ">xan" }, /* n: which key */
	[OP_WITHOUT] = { "without", ">xa" },
	[OP_MERGE] = { "merge", ">xab" },
	[OP_REF] = { "ref", ">xa" },
	[OP_FREE] = { "free", "x" },
	[OP_CANCEL] = { "cancel", "x" },
	[OP_CAUSE] = { "cause", "x" }, /* cancel with a cause of its own */
	[OP_CLOSE] = { "close", "x" },
	[OP_FD] = { "fd", "x" },
	[OP_LOOK] = { "look", "x" }, /* at err, cause and fd */
	[OP_WAIT] = { "wait", "x" },
	[OP_SLEEP] = { "sleep", "xn" },
	[OP_POLL] = { "poll", "xn" },
	[OP_GET] = { "get", "xn" },    /* the value of key n */
	[OP_CLOCK] = { "clock", "n" }, /* wait until n after the beginning */
	[OP_POST] = { "post", "xn" },  /* a reference, into mailbox n */
	[OP_TAKE] = { "take", ">xn" },
	[OP_PROMISE] = { "promise", "x" }, /* at first: thread 1 cancels x when it has done all else */
	[OP_SPLIT] = { "split", "x" },     /* gives x shards, as a crowd of threads would */
	[OP_AFTER] = { "after", "xne" },   /* an after-func on x, its handle is n, its errand e */
	[OP_STOP] = { "stop", "n" },
	[OP_SERVE] = { "serve", "n" },    /* run dispatcher n */
	[OP_WATCH] = { "watch", ">xan" }, /* x = with_fd(a, lever n) */
	[OP_PULL] = { "pull", "n" },      /* lever n: make its fd readable, or no longer */
	[OP_READ] = { "read", "x" },      /* a byte under x, from a socket pair */
	[OP_WRITE] = { "write", "x" },
	[OP_TELL] = { "tell", "x" }, /* describe, dump, deadline, remaining */
	[OP_NULLS] = { "nulls", "" },
	[OP_LOOP] = { "loop", ">xan" }, /* x = with_dispatcher(a, dispatcher n) */
	[OP_EDGE] = { "edge", "n" },    /* run dispatcher n if an edge-triggered watch of its fd says so */
	[OP_IDLE] = { "idle", ">xan" }, /* x = with_idle(a, n); 0 .. 3 as of a timeout */
	[OP_TOUCH] = { "touch", "x" },
	[OP_GRACE] = { "grace", ">xan" }, /* x = with_grace(a, n), the same */
	[OP_QUIT] = { "quit", "" },       /* of an errand: it ends its thread, if that is the library's */
};

static const char letters[MAX_VARS + 1] = "-=abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

const char *operands(enum what what)
{
	return words[what].takes;
}

bool uses(const struct script *s, enum what what)
{
	for (int l = 0; l < LISTS; l++)
		for (int i = 0; i < s->count[l]; i++)
			if (s->ops[l][i].what == what)
				return true;
	return false;
}

bool fits_errand(enum what what)
{
	switch (what) {
	case OP_WAIT:
	case OP_SLEEP:
	case OP_POLL:
	case OP_CLOCK:
	case OP_TAKE:
	case OP_PROMISE:
	case OP_PULL:
	case OP_READ:
	case OP_WRITE:
		return false;
	default:
		return true;
	}
}

/* ---- Text -------------------------------------------------------------------------------------------------------- */

static bool parse_operand(struct op *op, char which, const char *token)
{
	const char *letter = strchr(letters, *token);
	uint8_t *field = which == 'x' ? &op->x : which == 'a' ? &op->a : &op->b;

	if (which == 'n') {
		op->n = (int16_t)atoi(token);
		return true;
	}
	if (which == 'e') {
		op->b = (uint8_t)atoi(token);
		return op->b <= ERRANDS;
	}
	*field = letter ? (uint8_t)(letter - letters) : 0;
	return letter && !token[1];
}

static bool parse_op(struct op *op, char *text)
{
	char *rest, *token = strtok_r(text, " \t\n", &rest);
	bool ok = false;

	*op = (struct op){ 0 };
	for (int w = 0; token && w < WHATS && !ok; w++) {
		ok = !strcmp(token, words[w].word);
		op->what = (uint8_t)w;
	}
	for (const char *t = words[op->what].takes; ok && *t; t++) {
		if (*t == '>')
			continue;
		token = strtok_r(NULL, " \t\n", &rest);
		ok = token ? parse_operand(op, *t, token) : *t == 'e';
	}
	return ok && !strtok_r(NULL, " \t\n", &rest);
}

/* One list, up to what comes after it. */
static bool parse_list(struct script *s, int l, char *text)
{
	char *next, kept[64];

	for (char *one = text; one; one = next) {
		next = strchr(one, ';');
		if (next)
			*next++ = 0;
		if (one[strspn(one, " \t\n")] == 0)
			continue;
		snprintf(kept, sizeof kept, "%s", one);
		if (l >= LISTS || s->count[l] == MAX_OPS || !parse_op(&s->ops[l][s->count[l]], one) ||
		    (l > MAX_THREADS && !fits_errand(s->ops[l][s->count[l]].what))) {
			fprintf(stderr, "not an operation, here: %s\n", kept);
			return false;
		}
		s->count[l]++;
	}
	return true;
}

bool parse_script(struct script *s, const char *text)
{
	char *copy = strdup(text), *list = copy, end;
	int t = 0, errand = 0;
	bool ok = copy != NULL;

	memset(s, 0, sizeof *s);
	for (char *at = copy; ok && at; list = ++at) {
		at += strcspn(at, "|:");
		end = *at;
		*at = 0;
		ok = parse_list(s, errand ? list_of_errand(errand) : t > MAX_THREADS ? LISTS : t, list);
		if (!end)
			break;
		if (end == ':')
			errand++;
		else
			t++;
	}
	s->threads = t;
	free(copy);
	return ok;
}

size_t print_op(const struct op *op, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "%s", words[op->what].word);

	for (const char *t = words[op->what].takes; *t; t++) {
		char *at = n < size ? buf + n : NULL;
		size_t room = n < size ? size - n : 0;

		if (*t == 'n' || (*t == 'e' && op->b))
			n += (size_t)snprintf(at, room, " %d", *t == 'n' ? op->n : op->b);
		else if (*t != '>' && *t != 'e')
			n += (size_t)snprintf(at, room, " %c", letters[*t == 'x' ? op->x : *t == 'a' ? op->a : op->b]);
	}
	return n;
}

size_t print_script(const struct script *s, char *buf, size_t size)
{
	size_t n = 0;
	char one[64];

	if (size)
		*buf = 0;
	for (int l = 0; l < LISTS; l++) {
		if (l > s->threads && l <= MAX_THREADS)
			continue;
		if (l)
			n += (size_t)snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0, "%s",
			                      l > MAX_THREADS ? " : " : " | ");
		for (int i = 0; i < s->count[l]; i++) {
			print_op(&s->ops[l][i], one, sizeof one);
			n += (size_t)snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0, "%s%s", i ? "; " : "",
			                      one);
		}
	}
	return n;
}

/* ---- Chance ------------------------------------------------------------------------------------------------------ */

/* splitmix64 */
uint64_t draw(struct chance *c)
{
	uint64_t z = c->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

int below(struct chance *c, int n)
{
	return (int)(draw(c) % (uint64_t)n);
}

static uint8_t random_word(const struct climate *climate, struct chance *c)
{
	int sum = 0, w = 0;

	for (int i = 0; i < WHATS; i++)
		sum += climate->weight[i];
	for (sum = below(c, sum); sum >= climate->weight[w]; w++)
		sum -= climate->weight[w];
	return (uint8_t)w;
}

/* One that is likely to be there. Background now and then, as a parent only. */
static uint8_t random_var(const struct climate *climate, const bool *there, bool parent, struct chance *c)
{
	uint8_t v = 0;

	if (parent && below(c, 40) == 0)
		return (uint8_t)below(c, 2);
	if (below(c, 100) < climate->hot)
		return (uint8_t)(2 + below(c, 2));
	for (int tries = 0; tries < 6; tries++) {
		v = (uint8_t)(2 + below(c, climate->vars));
		if (there[v])
			break;
	}
	return v;
}

static void random_op(struct op *op, const struct climate *climate, bool *there, struct chance *c)
{
	const char *takes;

	*op = (struct op){ .what = random_word(climate, c) };
	takes = words[op->what].takes;
	op->x = *takes == '>' ? (uint8_t)(2 + below(c, climate->vars)) : random_var(climate, there, false, c);
	/* The first two stay, to be the roots of all. */
	if (*takes == '>' && op->x < 4 && below(c, 8))
		op->x = (uint8_t)(op->x + 2);
	op->a = random_var(climate, there, true, c);
	op->b = op->what == OP_AFTER ? (uint8_t)(climate->errand ? below(c, 1 + ERRANDS) : 0)
	                             : random_var(climate, there, true, c);
	/* A few are often the same, so that deadlines and keys meet. */
	op->n = (int16_t)(below(c, 4) ? below(c, climate->longest + 1)
	                              : below(c, 8) + (below(c, 2) ? climate->longest / 2 : 0));
	if (*takes == '>')
		there[op->x] = true;
	else if (op->what == OP_FREE || op->what == OP_CLOSE)
		there[op->x] = false;
}

/* What works on the errand's own context, which is the first letter: twice of three times. */
static void random_errand(struct script *s, int l, const struct climate *climate, struct chance *c)
{
	static const struct climate weather = {
		.vars = 5,
		.hot = 60,
		.weight = { [OP_NEW] = 4,
		            [OP_DEADLINE] = 1,
		            [OP_VALUE] = 1,
		            [OP_WITHOUT] = 1,
		            [OP_MERGE] = 1,
		            [OP_REF] = 3,
		            [OP_FREE] = 2,
		            [OP_CAUSE] = 1,
		            [OP_CLOSE] = 3,
		            [OP_FD] = 1,
		            [OP_LOOK] = 1,
		            [OP_POST] = 2,
		            [OP_SPLIT] = 1,
		            [OP_AFTER] = 5,
		            [OP_STOP] = 4,
		            [OP_SERVE] = 1,
		            [OP_LOOP] = 1,
		            [OP_QUIT] = 6 },
	};
	bool there[MAX_VARS] = { true, true, true };
	struct climate here = weather;

	here.longest = climate->longest;
	here.errand = climate->errand;
	for (int n = below(c, climate->errand + 1); n > 0; n--) {
		struct op *op = &s->ops[l][s->count[l]++];

		random_op(op, &here, there, c);
		if (!climate->weight[OP_LOOP] && (op->what == OP_LOOP || op->what == OP_SERVE))
			op->what = OP_REF;
		if (!climate->weight[OP_QUIT] && op->what == OP_QUIT)
			op->what = OP_REF;
		if (op->what == OP_AFTER || op->what == OP_STOP)
			op->n = (int16_t)(8 + below(c, 3) + 16 * below(c, 2)); /* few handles, so that they meet */
	}
}

void random_script(struct script *s, const struct climate *climate, struct chance *c)
{
	bool there[MAX_VARS] = { true, true }, mine[MAX_VARS];
	static const enum what makers[] = {
		OP_NEW, OP_NEW, OP_NEW, OP_NEW, OP_DEADLINE, OP_TIMEOUT, OP_VALUE, OP_MERGE
	};

	memset(s, 0, sizeof *s);
	s->threads = climate->threads;
	for (int i = 0; i < climate->setup && i < MAX_OPS; i++) {
		struct op *op = &s->ops[0][s->count[0]++];

		*op = (struct op){ .what = i < 2 ? OP_NEW : (uint8_t)makers[below(c, 8)],
			           .x = (uint8_t)(2 + i % climate->vars) };
		op->n = (int16_t)below(c, climate->longest + 1);
		op->a = i == 0 ? 0 : i == 1 ? (uint8_t)(below(c, 2) * 2) : random_var(climate, there, false, c);
		op->b = i < 2 ? 0 : random_var(climate, there, false, c);
		if (!climate->weight[op->what])
			op->what = OP_NEW;
		there[op->x] = true;
	}
	for (int t = climate->threads ? 1 : 0; t <= climate->threads; t++) {
		memcpy(mine, there, sizeof mine);
		for (int i = 0; i < climate->ops && s->count[t] < MAX_OPS; i++)
			random_op(&s->ops[t][s->count[t]++], climate, mine, c);
	}
	for (int e = 1; climate->errand && e <= ERRANDS; e++)
		random_errand(s, list_of_errand(e), climate, c);
}

static struct op decode_op(const uint8_t *bytes)
{
	struct op op = {
		.what = (uint8_t)(bytes[0] % WHATS),
		.x = (uint8_t)(bytes[1] % 16),
		.a = (uint8_t)(bytes[2] % 16),
		.b = (uint8_t)(bytes[3] % 16),
		.n = bytes[4],
	};

	if (op.what == OP_AFTER)
		op.b %= 1 + ERRANDS;
	return op;
}

/*
 * Few letters, so that a byte is likely to name one that is there, and no more operations than fit a short life. The
 * first few are the errands'.
 */
void decode_script(struct script *s, int *curious, const uint8_t *bytes, size_t size)
{
	int each = size ? bytes[0] / 3 % 6 : 0, n = 0;

	memset(s, 0, sizeof *s);
	*curious = size ? bytes[0] % 3 : 0;
	for (size_t at = 1; at + 5 <= size && s->count[0] < 100; at += 5, n++) {
		struct op op = decode_op(bytes + at);
		int l = n < each * ERRANDS ? list_of_errand(1 + n / each) : 0;

		if (l == 0 || fits_errand(op.what))
			s->ops[l][s->count[l]++] = op;
	}
}

/* ---- Shrinking --------------------------------------------------------------------------------------------------- */

static void cut(struct script *s, int list, int from, int n)
{
	memmove(&s->ops[list][from], &s->ops[list][from + n], (size_t)(s->count[list] - from - n) * sizeof(struct op));
	s->count[list] -= n;
}

void shrink_script(struct script *s, bool (*fails)(const struct script *s, void *arg), void *arg)
{
	struct script *tried = malloc(sizeof *tried);
	bool again = tried != NULL;

	while (again) {
		again = false;
		for (int t = 0; t < LISTS; t++)
			for (int n = s->count[t] / 2 + 1; n > 0; n /= 2)
				for (int from = s->count[t] - n; from >= 0; from -= n) {
					if (from + n > s->count[t])
						continue;
					*tried = *s;
					cut(tried, t, from, n);
					if (fails(tried, arg)) {
						*s = *tried;
						again = true;
					}
				}
	}
	free(tried);
}
