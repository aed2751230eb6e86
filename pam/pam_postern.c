//go:build ignore
/*
 * pam_postern: ask the Postern daemon whether a one-time code proves a person.
 *
 * The module decides nothing and stores nothing. It sends one question over a
 * Unix socket that root owns, and reads one answer; anything else is a refusal.
 * It starts no thread, installs no signal handler and reads no environment.
 *
 *   auth      asks for the code with its own prompt, then asks the daemon. A
 *             connection that is open meanwhile shows it if no code is given
 *   account   asks the daemon whether the account is active
 *   session   notifies the daemon that a session opens or closes
 *   setcred   has nothing to do
 *
 * Options:
 *
 *   socket=PATH   the daemon's socket (/run/postern/pam.sock)
 *   prompt=TEXT   what to ask ("YubiKey OTP: "); write [prompt=two words]
 *   timeout=N     seconds for the daemon to answer, 1 to 60 (10)
 *   users=A,B     only these users are asked; the module ignores all others
 *   combined      six digits, too, may follow a password in one field
 *   nullok        ignore, rather than deny, a person who has no factor at all
 *
 * Failures go to syslog here, to the audit system by libpam (which writes one
 * record for each pass through a stack, with the modules that granted it), and
 * to the timeline by the daemon.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

/*
 * The question, one packet: "PQ3", kind, nonce, flags, then service, user,
 * remote host, terminal, what was typed and the requesting user, as sudo and su
 * know it, each as one byte of length and its bytes.
 * The answer, one packet: "PA3", kind, nonce, verdict, and how many of the
 * last bytes of what was typed are the code: a password may precede it. Only the
 * daemon knows where it ends, since it knows the keys. No answer comes to
 * NOTIFY_ASKED: its connection ends with the packet "PD1" once a code was given.
 *
 * In version 1 the module looked for the code itself, and sent nothing else; in
 * version 2 it did not send the requesting user. The daemon answers all three; one
 * that does not know version 3 closes the connection.
 */
enum {
	NONCE = 16,
	FIELD_MAX = 255,
	QUESTION_MAX = 3 + 1 + NONCE + 1 + 6 * (1 + FIELD_MAX),
	ANSWER = 3 + 1 + NONCE + 1 + 1,
};

enum kind { ASK_CODE = 1, ASK_ACCOUNT = 2, NOTIFY_OPENED = 3, NOTIFY_CLOSED = 4, NOTIFY_ASKED = 5 };
enum verdict { YES = 1, NO = 2, NO_FACTOR = 3, UNAVAILABLE = 4 };
enum { FLAG_NULLOK = 1, FLAG_COMBINED = 2 };

struct options {
	const char *socket, *prompt, *users;
	long timeout;
	bool nullok, combined;
};

/* value returns what follows "name=" in arg, or NULL. */
static const char *value(const char *arg, const char *name)
{
	size_t n = strlen(name);
	return strncmp(arg, name, n) == 0 ? arg + n : NULL;
}

static bool set_option(struct options *o, const char *arg)
{
	const char *v;
	char *end;

	if ((v = value(arg, "socket=")) != NULL) {
		o->socket = v;
		return v[0] == '/';
	}
	if ((v = value(arg, "timeout=")) != NULL) {
		o->timeout = strtol(v, &end, 10);
		return end != v && *end == '\0' && o->timeout >= 1 && o->timeout <= 60;
	}
	if ((v = value(arg, "prompt=")) != NULL)
		o->prompt = v;
	else if ((v = value(arg, "users=")) != NULL)
		o->users = v;
	else if (strcmp(arg, "nullok") == 0)
		o->nullok = true;
	else if (strcmp(arg, "combined") == 0)
		o->combined = true;
	else
		return false;
	return true;
}

static bool set_options(pam_handle_t *pamh, struct options *o, int argc, const char **argv)
{
	*o = (struct options){ .socket = "/run/postern/pam.sock", .prompt = "YubiKey OTP: ", .timeout = 10 };
	for (int i = 0; i < argc; i++) {
		if (!set_option(o, argv[i])) {
			pam_syslog(pamh, LOG_ERR, "bad option %s: denying all users", argv[i]);
			return false;
		}
	}
	return true;
}

/* listed says whether user is one of the names in the comma-separated list. */
static bool listed(const char *list, const char *user)
{
	size_t n = strlen(user);
	for (const char *p = list; p != NULL; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (n > 0 && strncmp(p, user, n) == 0 && (p[n] == ',' || p[n] == '\0'))
			return true;
	return false;
}

/* wait_at_most bounds fd's next operation by what is left until end. */
static bool wait_at_most(int fd, int option, const struct timespec *end)
{
	struct timespec now;
	if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
		return false;
	long long us = (end->tv_sec - now.tv_sec) * 1000000LL + (end->tv_nsec - now.tv_nsec) / 1000;
	if (us <= 0) { /* and 0 would mean for ever */
		errno = ETIMEDOUT;
		return false;
	}
	struct timeval left = { .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
	return setsockopt(fd, SOL_SOCKET, option, &left, sizeof left) == 0;
}

/* dial connects to the daemon's socket, and makes sure that root listens. */
static int dial(const char *path, const struct timespec *end)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;
	struct ucred peer;
	socklen_t peer_len = sizeof peer;
	int rc;

	if (strlen(path) >= sizeof addr.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(addr.sun_path, path);
	if (lstat(path, &st) != 0)
		return -1;
	if (!S_ISSOCK(st.st_mode) || st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
		errno = EPERM;
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	do
		rc = wait_at_most(fd, SO_SNDTIMEO, end) ? connect(fd, (struct sockaddr *)&addr, sizeof addr) : -1;
	while (rc != 0 && errno == EINTR);
	if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) == 0) {
		if (peer.uid == 0)
			return fd;
		errno = EPERM;
	}
	rc = errno;
	close(fd);
	errno = rc;
	return -1;
}

/* field appends one field to a question of *n bytes. */
static bool field(unsigned char *question, size_t *n, const char *s)
{
	size_t len = s != NULL ? strlen(s) : 0;
	if (len > FIELD_MAX)
		return false;
	question[(*n)++] = (unsigned char)len;
	memcpy(question + *n, s != NULL ? s : "", len);
	*n += len;
	return true;
}

/* item returns one of PAM's strings, or NULL. */
static const char *item(pam_handle_t *pamh, int type)
{
	const void *p = NULL;
	return pam_get_item(pamh, type, &p) == PAM_SUCCESS ? p : NULL;
}

/* deadline sets end to what is so many seconds away. */
static bool deadline(struct timespec *end, long seconds)
{
	if (clock_gettime(CLOCK_MONOTONIC, end) != 0)
		return false;
	end->tv_sec += seconds;
	return true;
}

/* put sends a question and returns the connection: -1, with errno, for none. */
static int put(const char *path, const unsigned char *question, size_t n, const struct timespec *end)
{
	ssize_t rc;

	int fd = dial(path, end);
	if (fd < 0)
		return -1;
	do
		rc = wait_at_most(fd, SO_SNDTIMEO, end) ? send(fd, question, n, MSG_NOSIGNAL) : -1;
	while (rc < 0 && errno == EINTR);
	if (rc == (ssize_t)n)
		return fd;
	int err = errno;
	close(fd);
	errno = err;
	return -1;
}

/*
 * exchange sends the question and takes the verdict: 0, with errno, for none.
 * code becomes how many bytes at the end of what was typed are the code.
 */
static int exchange(const char *path, const unsigned char *question, size_t n, long seconds, size_t *code)
{
	unsigned char answer[ANSWER + 1];
	struct timespec end;
	ssize_t rc;

	int fd = deadline(&end, seconds) ? put(path, question, n, &end) : -1;
	if (fd < 0)
		return 0;
	do
		rc = wait_at_most(fd, SO_RCVTIMEO, &end) ? recv(fd, answer, sizeof answer, 0) : -1;
	while (rc < 0 && errno == EINTR);
	int err = rc < 0 ? errno : EPROTO; /* closed, or not our answer */
	close(fd);
	errno = err;
	if (rc != ANSWER || memcmp(answer, "PA3", 3) != 0 || memcmp(answer + 3, question + 3, 1 + NONCE) != 0)
		return 0;
	*code = answer[ANSWER - 1];
	return answer[ANSWER - 2];
}

/* compose writes a question and returns its length: 0, with errno, for none. */
static size_t compose(pam_handle_t *pamh, unsigned char *question, const struct options *o, enum kind kind,
                      const char *user, const char *code)
{
	size_t n = 4 + NONCE;

	memcpy(question, "PQ3", 3);
	question[3] = (unsigned char)kind;
	if (getrandom(question + 4, NONCE, 0) != NONCE)
		return 0;
	question[n++] = (unsigned char)((o->nullok ? FLAG_NULLOK : 0) | (o->combined ? FLAG_COMBINED : 0));
	errno = EMSGSIZE;
	bool fits = field(question, &n, item(pamh, PAM_SERVICE)) && field(question, &n, user) &&
	            field(question, &n, item(pamh, PAM_RHOST)) && field(question, &n, item(pamh, PAM_TTY)) &&
	            field(question, &n, code) && field(question, &n, item(pamh, PAM_RUSER));
	return fits ? n : 0;
}

/*
 * ask puts one question to the daemon and returns its verdict, 0 for none. code is
 * what was typed, NULL for none; code_len becomes the length of the code at its end.
 */
static int ask(pam_handle_t *pamh, const struct options *o, enum kind kind, const char *user, const char *code,
               size_t *code_len)
{
	unsigned char question[QUESTION_MAX];
	size_t sent = code != NULL ? strlen(code) : 0;

	size_t n = compose(pamh, question, o, kind, user, code);
	int verdict = n > 0 ? exchange(o->socket, question, n, o->timeout, code_len) : 0;
	if (verdict == YES && kind == ASK_CODE && (*code_len > sent || (*code_len == 0 && sent > 0))) {
		verdict = 0;
		errno = EPROTO;
	}
	if (verdict == 0)
		pam_syslog(pamh, LOG_ERR, "no answer from the daemon at %s: %s", o->socket,
		           errno == EPROTO ? "it does not answer in protocol 3: is it older than this module?" : strerror(errno));
	explicit_bzero(question, sizeof question);
	return verdict;
}

/*
 * announce notifies the daemon that a code is asked for, and returns the
 * connection: when that ends without a word, no code was given, since sshd kills
 * this process when its client hangs up. No decision depends on it; -1 means that
 * the daemon is unavailable.
 */
static int announce(pam_handle_t *pamh, const struct options *o, const char *user)
{
	unsigned char question[QUESTION_MAX];
	struct timespec end;

	size_t n = compose(pamh, question, o, NOTIFY_ASKED, user, NULL);
	int fd = n > 0 && deadline(&end, 1) ? put(o->socket, question, n, &end) : -1;
	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	close(fd); /* the prompt may read and write there */
	return -1;
}

/* prompt asks for the code; NULL if none is given. */
static char *prompt(pam_handle_t *pamh, const struct options *o, const char *user)
{
	char *typed = NULL;

	int asked = announce(pamh, o, user);
	if (pam_prompt(pamh, PAM_PROMPT_ECHO_OFF, &typed, "%s", o->prompt) != PAM_SUCCESS && typed != NULL) {
		explicit_bzero(typed, strlen(typed));
		free(typed);
		typed = NULL;
	}
	if (asked >= 0) {
		if (typed != NULL)
			(void)send(asked, "PD1", 3, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(asked);
	}
	return typed;
}

static int auth_result(pam_handle_t *pamh, const struct options *o, int verdict, const char *user)
{
	if (verdict == NO_FACTOR && o->nullok)
		return PAM_IGNORE;
	switch (verdict) {
	case YES:
		pam_syslog(pamh, LOG_INFO, "code accepted for %s", user);
		return PAM_SUCCESS;
	case NO:
	case NO_FACTOR:
		pam_syslog(pamh, LOG_NOTICE, "code refused for %s", user);
		return PAM_AUTH_ERR;
	default:
		pam_syslog(pamh, LOG_ERR, "code not checked for %s", user);
		return PAM_AUTHINFO_UNAVAIL;
	}
}

/* ready reads the options and the user's name; PAM_SUCCESS means go on. */
static int ready(pam_handle_t *pamh, struct options *o, const char **user, int argc, const char **argv)
{
	if (!set_options(pamh, o, argc, argv))
		return PAM_SERVICE_ERR;
	if (pam_get_user(pamh, user, NULL) != PAM_SUCCESS || *user == NULL || **user == '\0')
		return PAM_USER_UNKNOWN;
	return o->users != NULL && !listed(o->users, *user) ? PAM_IGNORE : PAM_SUCCESS;
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct options o;
	const char *user = NULL;
	(void)flags;

	int rc = ready(pamh, &o, &user, argc, argv);
	if (rc != PAM_SUCCESS)
		return rc;
	char *typed = prompt(pamh, &o, user);
	if (typed == NULL) {
		pam_syslog(pamh, LOG_NOTICE, "no code given for %s", user);
		return PAM_CONV_ERR;
	}
	size_t n = strlen(typed), code = 0;
	/* More than fits precedes the code, which is at the end. */
	rc = auth_result(pamh, &o, ask(pamh, &o, ASK_CODE, user, typed + (n > FIELD_MAX ? n - FIELD_MAX : 0), &code), user);
	if (rc == PAM_SUCCESS && code < n) {
		explicit_bzero(typed + n - code, code);
		rc = pam_set_item(pamh, PAM_AUTHTOK, typed);
	}
	explicit_bzero(typed, n);
	free(typed);
	return rc;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)pamh, (void)flags, (void)argc, (void)argv;
	return PAM_SUCCESS;
}

int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct options o;
	const char *user = NULL;
	size_t none;
	(void)flags;

	int rc = ready(pamh, &o, &user, argc, argv);
	if (rc != PAM_SUCCESS)
		return rc;
	switch (ask(pamh, &o, ASK_ACCOUNT, user, NULL, &none)) {
	case YES:
		return PAM_SUCCESS;
	case NO_FACTOR:
		return PAM_IGNORE;
	case NO:
		pam_syslog(pamh, LOG_NOTICE, "%s has no access", user);
		return PAM_PERM_DENIED;
	default:
		return PAM_AUTHINFO_UNAVAIL;
	}
}

/* notify records a session. Access was decided by auth, whatever the answer. */
static int notify(pam_handle_t *pamh, enum kind kind, int argc, const char **argv)
{
	struct options o;
	const char *user = NULL;
	size_t none;

	int rc = ready(pamh, &o, &user, argc, argv);
	if (rc != PAM_SUCCESS)
		return rc;
	return ask(pamh, &o, kind, user, NULL, &none) == YES ? PAM_SUCCESS : PAM_SESSION_ERR;
}

int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)flags;
	return notify(pamh, NOTIFY_OPENED, argc, argv);
}

int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)flags;
	return notify(pamh, NOTIFY_CLOSED, argc, argv);
}
