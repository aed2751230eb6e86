/*
 * authenticate CONFDIR SERVICE USER TIMES ANSWER...
 *
 * Goes TIMES times through PAM's auth, setcred, account and session stacks of
 * CONFDIR/SERVICE in one process, typing ANSWERs at the prompts. It prints the
 * results and the prompts if TIMES is 1, and always how many file descriptors
 * and bytes of memory are held more at the end than after the first tenth.
 */
#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <security/pam_appl.h>

struct typist {
	char **answers;
	int left;
	char prompts[512];
};

static int converse(int n, const struct pam_message **msg, struct pam_response **out, void *data)
{
	struct typist *t = data;
	struct pam_response *r = calloc((size_t)n, sizeof *r);
	if (r == NULL)
		return PAM_CONV_ERR;
	for (int i = 0; i < n; i++) {
		if (t->left == 0) {
			for (int j = 0; j < i; j++)
				free(r[j].resp);
			free(r);
			return PAM_CONV_ERR;
		}
		strncat(t->prompts, msg[i]->msg, sizeof t->prompts - strlen(t->prompts) - 1);
		r[i].resp = strdup(*t->answers++);
		t->left--;
	}
	*out = r;
	return PAM_SUCCESS;
}

static int open_files(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (d != NULL && readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	int times = atoi(argv[4]);
	int files = 0;
	size_t bytes = 0;
	for (int i = 0; i < times; i++) {
		struct typist t = { .answers = argv + 5, .left = argc - 5 };
		struct pam_conv conv = { converse, &t };
		pam_handle_t *pamh = NULL;
		if (pam_start_confdir(argv[2], argv[3], &conv, argv[1], &pamh) != PAM_SUCCESS)
			return 2;
		pam_set_item(pamh, PAM_RHOST, "192.0.2.7");
		pam_set_item(pamh, PAM_RUSER, "carol");
		int auth = pam_authenticate(pamh, 0);
		int cred = pam_setcred(pamh, PAM_ESTABLISH_CRED);
		int account = pam_acct_mgmt(pamh, 0);
		int opened = pam_open_session(pamh, 0);
		int closed = pam_close_session(pamh, 0);
		pam_end(pamh, auth);
		if (times == 1)
			printf("auth=%d cred=%d account=%d opened=%d closed=%d prompts=%s\n",
			       auth, cred, account, opened, closed, t.prompts);
		if (i == times / 10) {
			files = open_files();
			bytes = mallinfo2().uordblks;
		}
	}
	printf("leaked files=%d bytes=%ld\n", open_files() - files, (long)(mallinfo2().uordblks - bytes));
	return 0;
}
