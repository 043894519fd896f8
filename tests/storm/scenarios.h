/* SPDX-License-Identifier: MIT */
/*
 * The races that are known to be hard, as scripts (see script.h). Played in all their schedules, and by real threads.
 */
#ifndef SCENARIOS_H
#define SCENARIOS_H

static const struct scenario {
	const char *name, *script;
} scenarios[] = {
	{ "cancel against free", "new a -; new b a; new c b; fd a | cancel a; look a | free c; free b | look a" },
	{ "cancel against free of the root", "new a -; new b a; new c b | cancel a; free a; look c | free b; look c" },
	{ "cancel against the free of an orphan's last child",
	  "new a -; new b a; new c b; free b | cancel a; look a | free c" },
	{ "dump against the free of a leaf and of its parent",
	  "new a -; new b a; new c b | tell a | free c; free b | new d a; free d" },
	{ "dump against cancel and free", "new a -; new b a; new c b; free b | tell a; free a | cancel b; free c" },
	{ "dump of orphans whose last child goes", "new a -; new b a; new c b; free b | tell a | free c; free a" },
	{ "dumps against one another", "new a -; new b a; new c a | tell a; free a | tell a | free b; free c" },
	{ "dump of a crowd that goes", "new a -; split a; new b a; new c b | tell a | free c; free b; free a" },
	{ "dump of a crowd whose parent has no owner",
	  "new a -; new b a; split b; new c b; free b | tell a | free c; free a" },
	{ "dump against the cancel of a crowd",
	  "new a -; split a; new b a; new c a | tell a | cancel a; free b | free c" },
	{ "dump against a crowd that comes", "new a -; new b a | tell a | split a; new c a; free c | free b" },
	{ "dump of both parents of a merge that goes",
	  "new a -; new b -; merge d a b; new e d; free d | tell a; tell b | free e | cancel b" },
	{ "free against free, up a chain", "new a -; new b a; new c b; new d b; free b; free a | free c | free d" },
	{ "cancel against derive", "new a -; new b a; fd b | cancel a; look b | new c b; fd c; look c; look a" },
	{ "cancel against derive from below",
	  "new a -; new b a; new c b | cancel a; look c | new d c; new e d; look e; cancel e | look a" },
	{ "cancel against derive and free", "new a -; new b a | cancel a | new c b; free c | new c b; free c" },
	{ "cancel against done_fd", "new a -; new b a | cancel a; look b | fd b; look b | fd b; look a; look b" },
	{ "cancel against done_fd of a leaf", "new a - | cause a; look a | fd a; look a | fd a; look a" },
	{ "cancel against merge of two siblings",
	  "new a -; new b a; new c a | cancel a; look b | merge d b c; fd d; look d; look a" },
	{ "cancel against merge, second parent",
	  "new a -; new b - | cancel b; look b | merge d a b; fd d; look d; free d" },
	{ "cancel of both parents of a merge",
	  "new a -; new b -; merge d a b; new e d; fd e | cause a; look e | cause b; look e; look d | look b; look a" },
	{ "free of a merge against cancels of both parents",
	  "new a -; new b -; merge d a b; new e d; free d | cancel a | cancel b | free e" },
	{ "free of a merge against the free of its parents",
	  "new a -; new b -; merge d a b; free a; new e b; free b | free d | free e; new f -" },
	{ "merge of one with itself",
	  "new a -; new b a | cancel a; look b | merge c b b; new d c; fd d; look d; free c" },
	{ "merge of ancestor and descendant", "new a -; new b a; new c b; fd c | cause a; look c | cause b; look c | "
	                                      "merge d a c; look d; merge e c a; look e" },
	{ "two cancels, one above the other", "new a -; new b a; new c b; new d c; fd c; fd d | cause a; look b; look "
	                                      "d | cause b; look c; look d | look c; look d" },
	{ "two cancels of one",
	  "new a -; new b a; new c b; fd a; fd c | cause a; look c | cause a; look a; look c | look a" },
	{ "three cancels in a chain",
	  "new a -; new b a; new c b; fd c | cause a; look c | cause b; look c | cause c; look c" },
	{ "cancels from below and above with siblings",
	  "new a -; new b a; new c b; new d b; fd d | cause b; look d | cause a; look c; look d | free c; look a" },
	{ "cancels that meet at a merge", "new a -; new b a; new c a; merge d b c; new e d; fd e | cause b; look e | "
	                                  "cause c; look e | cause a; look d; look e" },
	{ "a passing deadline against cancel",
	  "deadline a - 10; new b a; fd a; fd b | cause a; look a; look b | clock 10; look b; look a" },
	{ "a passing deadline against cancel and looks",
	  "deadline a - 10; new b a; fd b | cause a; look b | clock 10 | look a; look b; look a" },
	{ "a passing deadline below a cancel",
	  "new a -; deadline b a 11; new c b; fd b; fd c | cause a; look b; look c | clock 11; look c; look b" },
	{ "a passing deadline in the middle of three walks",
	  "new a -; deadline b a 11; new c b; new d c; fd d; fd c | cause a; look d | clock 11; cause b; look c | "
	  "cause c; look d" },
	{ "a passing deadline against derive",
	  "deadline a - 11; new b a | clock 11; look a; cancel a | deadline c b 10; fd c; look c; look b" },
	{ "a passing deadline against done_fd", "deadline a - 11 | clock 11; look a | fd a; look a | look a; fd a" },
	{ "a passing deadline against merge", "deadline a - 11; deadline b - 12 | clock 12; look b | merge c a b; fd "
	                                      "c; look c | cause a; merge c b a; look c" },
	{ "a passing deadline lets children go under the walk",
	  "deadline a - 10; new b a; new c a; new d c | cause a; look a | clock 10; look a; free b; free c | free d" },
	{ "two deadlines pass one in the other", "deadline a - 13; deadline b a 11; new c b; fd c | clock 11; look c | "
	                                         "clock 13; look a | cause a; look b; look c" },
	{ "an expired child takes no verdict from above",
	  "new a -; deadline b a 11; new c b; look b; look c | clock 11; cause a; look b; look c | look b; look c" },
	{ "cancel against wait", "new a -; new b a; fd b | cancel a | wait b; look b | wait a; look b" },
	{ "cancel against wait on a leaf", "new a - | cancel a | wait a | wait a; look a" },
	{ "a passing deadline against wait",
	  "deadline a - 11; new b a; fd b | wait b; look a | wait a; look b | clock 11" },
	{ "cancel and deadline against wait", "deadline a - 11; new b a | cause a | wait b; look a | wait a; look b" },
	{ "cancel against sleep and poll",
	  "new a -; new b a | cancel a | sleep b 20; look b | poll b 20; look b; look a" },
	{ "two polls against cancel", "new a -; new b a | poll b 20; look b | poll b 20; look b | cancel a; look b" },
	{ "poll below shards against cancel", "new a -; split a | poll a 20; look a | cause a; look a" },
	{ "poll against close", "new a -; new b a | poll b 20; free b; free a | close a; close b" },
	{ "poll of an orphan's child against cancel",
	  "new a -; new b a; free a | poll b 20; free b | cancel b; free b" },
	{ "poll below a deadline whose alarm rings",
	  "deadline a - 11; after a 1; new b a | poll b 20; free b | clock 11 | free a; stop 1" },
	{ "poll beside an after-func against cancel",
	  "new a -; after a 1 | poll a 20; look a; free a | cause a; free a | stop 1; free a" },
	{ "polls of a merge against the end of its second parent",
	  "new a -; new b -; merge c a b; free a | poll c 20; free c | cause b; free b; free c | poll c 20; look b; "
	  "free c" },
	{ "polls of an orphan with shards against cancel",
	  "new a -; new b a; split b; free a | poll b 20; free b | cancel b; free b | poll b 20; free b" },
	{ "poll while shards come", "new a - | poll a 20; look a | split a; free a | cause a; look a" },
	{ "poll of a value's context against close",
	  "new a -; value v a 1; free a | poll v 20; free v | new b v; free v; cause b; close b | free v" },
	{ "poll of a source on a dispatcher",
	  "loop c - 1; watch b c 1; free c | poll b 20; look b; free b | pull 1; serve 1; free b | edge 1; free b" },
	{ "poll beside shards and an after-func of a deadline",
	  "deadline a - 11; split a; after a 1; free a | poll a 20; free a | clock 11; free a | cause a; free a; stop "
	  "1" },
	{ "a deadline against sleep and poll",
	  "deadline a - 11; new b a | sleep b 11; look b | poll b 12; look b | clock 11" },
	{ "wait by two cancellers",
	  "new a -; new b a; new c b | cause a; look c | cause b; look b | wait c; look b; look c" },
	{ "close against all that hold it",
	  "new a -; new b a; value v b 1 | close a; look b | new c v; close b; look c | get v 1; free v" },
	{ "values outlive their context", "new a -; value v a 1; value u v 2; new b u; free v; free u; free a | cancel "
	                                  "b; get b 1; free b | get b 2; free b" },
	{ "a value's context is cancelled while derived from",
	  "new a -; value v a 1 | cancel a; free a | new b v; get b 1; look b; free v | fd v; look v" },
	{ "without_cancel is out of reach",
	  "new a -; value v a 1; without u v; new b u; fd b | cancel a; look b; get b 1 | cause b; free u; look b" },
	{ "new ones by mail", "new a -; new b a | new c b; post c 0; look c | take d 0; new e d; look e; cause b | "
	                      "look a; take f 0; look f; free f" },
	{ "mail against cancel",
	  "new a -; new b a | new c b; post c 0; free c | cancel a; take d 0; look d | fd b; look b" },
	{ "close of an only child under a cancel",
	  "new a -; new b a; fd a | cancel a; look a | close b | new c a; close c" },
	/* Parents with shards. */
	{ "split against derive", "new a - | split a | new b a; look b; free b | new c a; look c" },
	{ "split against cancel", "new a -; new b a; fd b | split a | cause a; look b | new c a; look c; free c" },
	{ "derive below shards against cancel",
	  "new a -; split a; new b a | cause a; look b | new c a; fd c; look c; look a" },
	{ "free of the last child of an orphan with shards", "new a -; split a; new b a; free a | free b" },
	{ "free of an owner of shards against that of the last child",
	  "new a -; split a; new b a; split b; new c b | free a; free b | free c" },
	{ "free of shards against cancel", "new a -; new b a; split b; new c b; free b | cause a; look a | free c" },
	{ "merge below shards", "new a -; new b -; split a; split b | cause a | merge c a b; look c; free c | free b" },
	{ "a passing deadline above shards",
	  "deadline a - 11; split a; new b a; fd b | cause a; look b | clock 11; look b | new c a; look c" },
	/* After-funcs. */
	{ "cancel against an after-func", "new a - | cause a | after a 1; stop 1" },
	{ "cancel against two after-funcs", "new a - | cause a | after a 1; after a 0 | after a 2; stop 2" },
	{ "stop against cancel", "new a -; new b a; after b 1; free b | cause a | stop 1" },
	{ "an after-func of a deadline", "deadline a - 11 | clock 11; look a | after a 1; stop 1 | cause a; look a" },
	{ "an after-func of a deadline that passes under a walk",
	  "deadline a - 11; new b a; new c a; after a 1 | cause a; look a | clock 11; look a | free b; free c; stop "
	  "1" },
	{ "two after-funcs of a deadline, whose owner leaves",
	  "deadline a - 11; after a 1 | clock 11 | after a 2; stop 2; free a | stop 1" },
	{ "a deadline's alarm finds no after-func, and its context goes",
	  "deadline a - 11; after a 1; stop 1; new b a | clock 11 | fd a; free a | free b" },
	{ "an after-func of a deadline was alone where shards come",
	  "deadline a - 11; after a 1; stop 1 | split a; new b a; look b; free b | cause a; look a" },
	{ "after-funcs of a deadline beside shards", "deadline a - 11; new b a | after a 1; look b; stop 1 | split a; "
	                                             "new c a; free c; look a | clock 11; look a" },
	{ "after-funcs in order, on one that ends",
	  "new a -; new b a; after b 1 | cause a | look b; after b 2; look b" },
	/* Dispatchers of the program's. */
	{ "two threads run one dispatcher", "loop b - 1; new a b; after a 1 | cause a | serve 1; stop 1 | serve 1; "
	                                    "after a 2; serve 1" },
	{ "two threads go by the edges of one dispatcher",
	  "loop b - 1; new a b; after a 1; new c b; after c 2 | cause a; edge 1 | cause c; edge 1" },
	{ "an edge meets a run that is under way",
	  "loop b - 1; new a b; after a 1; new c b | cause a; serve 1 | after c 3; cause c | edge 1; edge 1" },
	{ "a deadline is due while a dispatcher runs",
	  "loop b - 1; new a b; after a 1; deadline c b 11; after c 2 | cause a; serve 1 | clock 11; edge 1" },
	{ "one context, three dispatchers",
	  "new a -; loop b a 1; loop c a 2; after a 1; after b 2; after c 3 | cause a; "
	  "serve 1 | serve 2; stop 2 | serve 1; stop 3" },
	{ "one deadline, three dispatchers", "deadline a - 11; loop b a 1; loop c a 2 | after a 1; clock 11; serve 1 | "
	                                     "after b 2; serve 2 | after c 3; free "
	                                     "a; stop 3; serve 1" },
	{ "a dispatcher goes with its last context",
	  "loop b - 1; new a b; after a 1; free b | cancel a; free a | serve "
	  "1 | stop 1" },
	{ "a source on a dispatcher against cancel",
	  "loop c - 1; watch b c 1; fd b | cause b; look b | pull 1; serve 1; look b | edge 1; free b" },
	{ "a source that is freed as its dispatcher comes to it",
	  "loop c - 1; watch b c 1; watch d c 1 | pull 1; serve 1 | free b; edge 1 | free d" },
	{ "three threads are the first to need the library's",
	  "new a -; new b - | after a 1; cause a | after b 2; stop 2; cause b | watch c a 1; free c; cause b" },
	{ "an idle timeout and a grace are the first to need the library's thread",
	  "new p - | idle a p 10; look a; free a | grace b p 0; look b; free b | cause p" },
	{ "two after-funcs end the thread, and there is a third",
	  "new a -; after a 1 1; after a 2 1; after a 3 | cause a; free a : quit" },
	{ "after-funcs end the thread while others are registered and stopped",
	  "new a -; new b -; after a 1 1 | cause a; free a | after b 2 1; cause b | after b 3; stop 3; free b : quit" },
	{ "after-funcs hold what they wait for", "new a -; new b a; after b 1; free b | cancel a; free a | stop 1" },
	/* Sources. */
	{ "a source against cancel", "new a -; watch b a 1; fd b | cause a; look b | pull 1; look b | free b" },
	{ "a source against free", "new a -; watch b a 1; watch c a 1 | pull 1; look a | free b | free c; free a" },
	{ "a source made while its fd becomes ready", "new a - | watch b a 1; look b | pull 1; look a | cause a" },
	{ "a source ends an after-func's context",
	  "new a -; watch b a 1; after b 1; free b | pull 1; cause a | stop 1" },
	/* Idle timeouts. */
	{ "a touch against an idle timeout", "loop c - 1; idle a c 10; clock 10 | serve 1; look a | touch a; look a" },
	{ "touches by two threads against an idle timeout",
	  "loop c - 1; idle a c 10; new b a; clock 11 | serve 1; look b | touch a; look b; serve 1 | touch a; look a" },
	{ "touches at different times against an idle timeout",
	  "loop c - 1; idle a c 10; fd a | clock 10; serve 1; look a; edge 1 | touch a; clock 12; touch a; look a | "
	  "clock 20; serve 1; look a" },
	{ "a touch against an idle timeout and a cancel",
	  "loop c - 1; idle a c 10; new b a; fd b; clock 10 | serve 1; look b | touch a; look b | cause a; look b" },
	{ "a touch against an idle timeout and a cancel from above",
	  "new p -; loop c p 1; idle a c 10; new b a; clock 10 | serve 1; look b | touch a; look b | cause p; look a" },
	{ "a touch against an idle timeout and the free of all else",
	  "loop c - 1; idle a c 10; new b a; free c; clock 10 | edge 1; free a | touch a; free a | free b; free a" },
	{ "an idle timeout against derive and merge",
	  "new p -; loop c - 1; idle a c 10; clock 10 | serve 1; look a | new b a; look b | merge d p a; look d; touch "
	  "a; look d" },
	{ "an idle timeout and a deadline above it",
	  "deadline p - 10; loop c p 1; idle a c 10; new b a; fd b | clock 10; serve 1; look b | touch a; look b | "
	  "look p; look a" },
	{ "idle timeouts on the library's thread",
	  "idle a - 10; idle b a 10; fd b | clock 10; look b | touch b; look b | touch a; look a; free b" },
	{ "an after-func touches the context that has been idle",
	  "loop c - 1; idle a c 10; after a 0 1; new b a; clock 10 | serve 1; look a | touch a; look b | free a : "
	  "touch "
	  "a; look a; close a" },
	/* Graces. */
	{ "a grace against its parent's cancel",
	  "new p -; new b p; loop c p 1; grace a c 0; new d a | cause p; look a | serve 1; look d | look a; look d" },
	{ "a grace against cancel and free",
	  "new p -; loop c p 1; grace a c 0; free c | cause p; free p | look a; free a | edge 1" },
	{ "a grace against its own cancel",
	  "new p -; loop c p 1; grace a c 0; fd a | cause p; look a | cause a; look a | serve 1; look a" },
	{ "a grace made while its parent ends",
	  "new p -; new b p; loop c p 1 | cause p; look b | grace a c 0; look a; serve 1; look a | look p" },
	{ "a grace made while the clock goes on and its parent ends",
	  "new p -; loop c p 1 | clock 10; cause p | grace a c 5; look a; serve 1; look a" },
	{ "a grace made while its parent's deadline passes",
	  "deadline p - 10; loop c p 1 | clock 11; cause p | grace a c 5; look a; serve 1; look a" },
	{ "a grace after another, and a loop that comes late",
	  "new p -; loop c p 1; grace a c 5; grace b a 5 | cause p; clock 20; serve 1; look b | look a; look b; cause "
	  "a" },
	{ "a grace and a deadline",
	  "deadline p - 10; loop c p 1; grace a c 5; new d a | clock 10; look a; serve 1; look d | cause p; look a | "
	  "look a; clock 15; serve 1; look d" },
	{ "a grace and a cancel from above",
	  "new r -; new p r; loop c p 1; grace a c 0; free c | cause r; look a | free p; serve 1 | look a; free a" },
	{ "graces on the library's thread",
	  "new p -; grace a p 0; grace b a 0; fd b | cause p; look a; look b | look a | look b; free a" },
	{ "a merge with a grace against cancels", "new p -; loop c p 1; grace a c 0; new q -; merge d a q; look d | "
	                                          "cause p; look d | serve 1; look d | cause q" },
	{ "a grace in a crowd",
	  "new p -; split p; loop c p 1; grace a c 0 | cause p; look a | free a | serve 1; free p" },
	{ "dump against graces",
	  "new p -; loop c p 1; grace a c 0; new d a | tell p; look a | cause p; serve 1 | free d; free a" },
	{ "a grace whose parent's deadline passes under its cancel, and a dump",
	  "deadline p - 10; loop c p 1; grace a c 0; new d a; after d 1 | cause p; look a | clock 10; serve 1; look d "
	  "| "
	  "tell p; free a; stop 1" },
	{ "a grace after another that is given up", "new p -; loop c p 1; grace a c 0; grace b a 0; free a | cause p; "
	                                            "free p | serve 1; look b; edge 1 | free b" },
	{ "a grace after an idle timeout, against a touch", "loop c - 1; idle a c 10; grace b a 0; clock 10 | serve 1; "
	                                                    "look b; edge 1 | touch a; look a; free a | look b; "
	                                                    "free b" },
	{ "a merge of a grace and its parent, and a dump", "new p -; loop c p 1; grace a c 0; merge d a p; new e d | "
	                                                   "cause p; look d | serve 1; look e | tell p; free d; "
	                                                   "free e" },
	{ "fn leaves a grace behind as the owner leaves",
	  "loop c - 1; new p c; new a p; after a 0 1 | cause p; serve 1 | free a; edge 1; free p | take e 0; look e; "
	  "free e : grace b a 0; post b 0" },
	/* After-funcs that have an errand on their own context, while its owners leave. */
	{ "fn registers and stops on an orphaned context",
	  "new p -; new a p; after a 1 1; free a | cause p; free p | stop 1 : after a 1; stop 1" },
	{ "fn registers and stops, and nobody has its handle",
	  "new p -; new a p; after a 0 1 | cause p; free p | free a : after a 1; stop 1; look a" },
	{ "fn derives and closes while two owners leave",
	  "new p -; new a p; ref b a; after a 0 1 | cause p | free a | free b : new b a; close b" },
	{ "fn derives and closes on shards while two owners leave",
	  "new p -; new a p; split a; new d a; ref b a; after a 0 1 | cause p; free d | free a | free b : new b a; "
	  "close b" },
	{ "fn refs and unrefs on shards while two owners leave",
	  "new p -; new a p; split a; new d a; ref b a; after a 0 1 | cause p | free a; free d | free b : ref b a; "
	  "free b" },
	{ "fn leaves a reference behind as the owner leaves",
	  "new p -; new a p; after a 0 1 | cause p | free a | take c 0; look c; free c : ref b a; post b 0" },
	{ "fn leaves a reference behind as the owner closes",
	  "new p -; new a p; after a 0 1 | cause p | close a | take c 0; look c; free c : ref b a; post b 0" },
	{ "fn leaves a child behind as the owner leaves",
	  "new p -; new a p; after a 0 1 | cause p | free a | take c 0; look c; free c : new b a; post b 0" },
	{ "fn leaves a child behind as the owner closes",
	  "new p -; new a p; after a 0 1 | cause p | close a | take c 0; look c; free c : new b a; post b 0" },
	{ "fn leaves an after-func behind as the owner leaves",
	  "new p -; new a p; after a 0 1 | cause p | free a : after a 0 2 : look a; after a 0" },
	{ "fn leaves an after-func behind as the owner closes",
	  "new p -; new a p; after a 0 1 | cause p | close a : after a 0 2 : look a; after a 0" },
	{ "fn leaves an after-func with a handle behind",
	  "new p -; new a p; after a 1 1; free a | cause p | stop 1 : after a 1 2 : look a" },
	{ "fn leaves a reference behind on shards as the owner leaves",
	  "new p -; new a p; split a; new d a; after a 0 1 | cause p; free d | free a | take c 0; look c; free c : ref "
	  "b a; post b 0" },
	{ "fn closes its own context",
	  "new p -; new a p; after a 0 1; after a 1 1 | cause p | free a | stop 1 : close a; fd a; cancel a" },
	{ "fn of a deadline leaves things behind as the owner leaves",
	  "deadline a - 11; after a 0 1 | clock 11; look a | free a | take c 0; look c; free c : ref b a; post b 0; "
	  "after a 0" },
	{ "fn of a deadline registers and stops on an orphan",
	  "deadline a - 11; after a 1 1; free a | clock 11 | stop 1 : after a 1; stop 1; new b a; close b" },
	{ "fn on a value context leaves a value behind",
	  "new p -; new b p; value a b 1; after a 0 1 | cause p | free a; free b | take c 0; get c 1; free c : value b "
	  "a 2; post b 0" },
	{ "fn on a merge derives and closes while its owners leave",
	  "new p -; new q -; merge a p q; ref b a; after a 0 1 | cause p; free q | cause q; free a | free b : new b a; "
	  "close b; ref b a; post b 0" },
	{ "fn on a dispatcher leaves a reference behind as the owner leaves",
	  "loop p - 1; new q p; new a q; after a 0 1 | cause q; serve 1 | free a; edge 1 | take c 0; look c; free c : "
	  "ref b a; post b 0" },
	{ "fn on a dispatcher registers, stops and derives on an orphan",
	  "loop p - 1; new q p; new a q; after a 0 1; after a 1 1; free a; free p | cause q; serve 1 | edge 1; stop 1 "
	  ": after a 1; stop 1; new b a; close b" },
	{ "fn runs the other dispatcher",
	  "loop p - 1; loop q - 2; new a p; new b q; after a 0 1; after b 0 2 | cause a; cause b; serve 1 | serve 2; "
	  "free b | free a; edge 1; edge 2 : serve 2; ref b a; post b 0 : serve 1; new b a; free b" },
	{ "two fns of one context, on two dispatchers",
	  "new a -; loop b a 1; after a 0 1; after b 1 1 | cause a; free a; serve 1 | edge 1; stop 1 | free b : new b "
	  "a; close b; after a 1; stop 1; split a" },
};

#endif
