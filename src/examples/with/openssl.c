/* SPDX-License-Identifier: MIT */
/*
 * openssl MILLISECONDS HOST PORT CA LINE: sends a line by TLS, and prints what comes back. One context ends all of it:
 * the lookup of the name, the connection, the handshake, and every read and write.
 *
 * - The BIO reads by ctxfd_recv and writes by ctxfd_send, so OpenSSL needs no retries: to it, the stream blocks. An end
 *   of the context is an error for good, and the BIO sets no retry flag.
 * - After such an error the SSL object is only good for SSL_free. Do not call SSL_shutdown then, as its manual says.
 */
#include "command.h"

#include <ctxfd_net.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <unistd.h>

/* What the BIO is made of. The context may be another one for each call of OpenSSL; the stream holds no reference. */
struct stream {
	const struct ctxfd *ctx;
	int fd, err; /* err: 0 or the -errno of the call that failed */
	bool eof;
};

static int stream_read(BIO *bio, char *buf, int size)
{
	struct stream *s = BIO_get_data(bio);
	ssize_t n = ctxfd_recv(s->ctx, s->fd, buf, (size_t)size, 0);

	s->eof = n == 0;
	if (n < 0)
		s->err = (int)n;
	return n < 0 ? -1 : (int)n;
}

static int stream_write(BIO *bio, const char *buf, int size)
{
	struct stream *s = BIO_get_data(bio);
	ssize_t n = ctxfd_send(s->ctx, s->fd, buf, (size_t)size, MSG_NOSIGNAL);

	if (n < 0)
		s->err = (int)n;
	return n < 0 ? -1 : (int)n;
}

static long stream_ctrl(BIO *bio, int command, long number, void *pointer)
{
	struct stream *s = BIO_get_data(bio);

	(void)number, (void)pointer;
	if (command == BIO_CTRL_EOF)
		return s->eof;
	return command == BIO_CTRL_FLUSH; /* there is no buffer to flush */
}

/* Returns a BIO on s, or NULL. The method must live as long as the BIO. */
static BIO *stream_bio(struct stream *s, BIO_METHOD **method)
{
	BIO *bio;

	*method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ctxfd");
	if (!*method || !BIO_meth_set_read(*method, stream_read) || !BIO_meth_set_write(*method, stream_write) ||
	    !BIO_meth_set_ctrl(*method, stream_ctrl))
		return NULL;
	bio = BIO_new(*method);
	if (bio) {
		BIO_set_data(bio, s);
		BIO_set_init(bio, 1);
	}
	return bio;
}

/* What a failed call of OpenSSL comes down to: err, the -errno of the socket, or -EPROTO. */
static int why(const struct stream *s)
{
	return s->err ? s->err : -EPROTO;
}

/* Returns 0, err, or -errno. */
static int talk(SSL *ssl, const struct stream *s, const char *host, const char *line)
{
	char buf[4096];
	int n;

	if (!SSL_set_tlsext_host_name(ssl, host) || !SSL_set1_host(ssl, host))
		return -ENOMEM;
	if (SSL_connect(ssl) <= 0 || SSL_write(ssl, line, (int)strlen(line)) <= 0)
		return why(s);
	while ((n = SSL_read(ssl, buf, sizeof(buf))) > 0)
		if (fwrite(buf, 1, (size_t)n, stdout) < (size_t)n)
			return -EIO;
	if (SSL_get_error(ssl, n) != SSL_ERROR_ZERO_RETURN) /* without the server's good-bye it may not have been all */
		return why(s);
	return SSL_shutdown(ssl) < 0 ? why(s) : 0;
}

static int tls(const struct ctxfd *ctx, char **argv)
{
	struct stream s = { .ctx = ctx, .fd = ctxfd_dial(ctx, argv[2], argv[3], SOCK_CLOEXEC) };
	SSL_CTX *settings = NULL;
	SSL *ssl = NULL;
	BIO_METHOD *method = NULL;
	BIO *bio = NULL;
	int err = -ENOMEM;

	if (s.fd < 0)
		return s.fd;
	settings = SSL_CTX_new(TLS_client_method());
	if (settings && SSL_CTX_load_verify_locations(settings, argv[4], NULL)) {
		SSL_CTX_set_verify(settings, SSL_VERIFY_PEER, NULL);
		ssl = SSL_new(settings);
		bio = stream_bio(&s, &method);
	}
	if (ssl && bio) {
		SSL_set_bio(ssl, bio, bio); /* SSL_free frees the BIO */
		err = talk(ssl, &s, argv[2], argv[5]);
	} else {
		BIO_free(bio);
	}
	SSL_free(ssl);
	SSL_CTX_free(settings);
	BIO_meth_free(method);
	close(s.fd);
	return err;
}

int main(int argc, char **argv)
{
	struct ctxfd *ctx = command_context(argc > 1 ? argv[1] : "0");
	int err = !ctx ? -errno : argc == 6 ? tls(ctx, argv) : -EINVAL;

	ctxfd_close(ctx);
	return command_end("openssl", err);
}
