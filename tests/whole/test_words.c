/* SPDX-License-Identifier: MIT */
/* What the header says of cases in which a reader may expect something else. */
#include <sys/epoll.h>

#include "sockets.h"

#define CAUSE (-1234)

/* A connection over loopback: the server's side, and the client's. */
static void connect_pair(int *server, int *client)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(addr);
	int listener = make_socket(AF_INET, SOCK_STREAM);

	*client = make_socket(AF_INET, SOCK_STREAM);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, size), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &size), 0);
	assert_int_equal(connect(*client, (struct sockaddr *)&addr, size), 0);
	*server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(*server >= 0);
	close(listener);
}

static void a_socket_must_be_connected_first(void **state)
{
	const int families[] = { AF_INET, AF_UNIX };

	for (size_t i = 0; i < COUNT(families); i++) {
		int fd = make_socket(families[i], SOCK_STREAM);
		struct ctxfd *ctx = ctxfd_with_fd(ctxfd_background(), fd, POLLRDHUP, CAUSE);

		assert_non_null(ctx);
		assert_int_equal(ctxfd_err(ctx), -ECANCELED);
		assert_int_equal(ctxfd_cause(ctx), CAUSE);
		ctxfd_close(ctx);
		close(fd);
	}
}

static void a_client_that_only_stops_sending(void **state)
{
	struct ctxfd *hung_up, *broken;
	int server, client;
	char byte;

	connect_pair(&server, &client);
	hung_up = ctxfd_with_fd(ctxfd_background(), server, POLLRDHUP, CAUSE);
	broken = ctxfd_with_fd(ctxfd_background(), server, 0, CAUSE);
	assert_non_null(hung_up);
	assert_non_null(broken);
	assert_int_equal(shutdown(client, SHUT_WR), 0);
	assert_int_equal(ctxfd_wait(hung_up), -ECANCELED);
	assert_int_equal(send(server, "x", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(recv(client, &byte, 1, 0), 1); /* it gets its answer */
	assert_int_equal(ctxfd_err(broken), 0);

	close(client);
	assert_int_equal(ctxfd_err(broken), 0);
	send(server, "x", 1, MSG_NOSIGNAL);
	assert_int_equal(ctxfd_wait(broken), -ECANCELED);
	ctxfd_close(hung_up);
	ctxfd_close(broken);
	close(server);
}

/* The parent's deadline ends all below it: err tells at once, and makes that context's fd readable. */
static void fds_below_an_expired_context(void **state)
{
	struct ctxfd *parent = ctxfd_with_timeout(ctxfd_background(), 5 * CTXFD_MSEC);
	struct ctxfd *asked = ctxfd_with_cancel(parent), *watched = ctxfd_with_cancel(parent);
	struct pollfd p = { .fd = ctxfd_done_fd(watched), .events = POLLIN };

	assert_true(ctxfd_done_fd(asked) >= 0);
	while (!ctxfd_err(parent))
		continue;
	assert_int_equal(ctxfd_err(asked), -ETIMEDOUT);
	assert_readable(ctxfd_done_fd(asked));
	assert_int_equal(poll(&p, 1, -1), 1);
	ctxfd_close(watched);
	ctxfd_close(asked);
	ctxfd_close(parent);
}

/* The number of a freed context's fd goes to the next one, and an epoll set knows nothing of that. */
static void a_watcher_without_a_reference(void **state)
{
	struct ctxfd *first = ctxfd_with_cancel(ctxfd_background()), *second;
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC), fd = ctxfd_done_fd(first);

	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
	ctxfd_unref(first);
	second = ctxfd_with_cancel(ctxfd_background());
	assert_int_equal(ctxfd_done_fd(second), fd);
	ctxfd_cancel(second);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 0);
	ctxfd_unref(second);
	close(epoll);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_socket_must_be_connected_first),
		cmocka_unit_test(a_client_that_only_stops_sending),
		cmocka_unit_test(fds_below_an_expired_context),
		cmocka_unit_test(a_watcher_without_a_reference),
	};

	start_dispatcher();
	return run_all(tests);
}
