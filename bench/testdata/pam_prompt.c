/* pam_prompt: asks for a code and accepts any, to measure what a login with a prompt costs. */
#include <stdlib.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	char *typed = NULL;
	(void)flags, (void)argc, (void)argv;
	int rc = pam_prompt(pamh, PAM_PROMPT_ECHO_OFF, &typed, "Code: ");
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
	return pam_sm_setcred(pamh, flags, argc, argv);
}
