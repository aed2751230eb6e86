// Where stacks are hard to unwind: a signal handler that interrupted a leaf, a
// callback from libc, a PLT stub, the vDSO, frames of variable size, a call that
// is its function's last instruction.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline)) void spot(volatile int *x) { *x += 1; }

static void handler(int sig)
{
	volatile int x = sig;
	spot(&x);
}

__attribute__((noinline)) static int leaf(volatile int *x)
{
	*x = 0;
	return *(volatile int *)0x10; // interrupted here
}

static void resume(int sig, siginfo_t *info, void *context)
{
	handler(sig);
	_exit(0);
}

static int compare(const void *a, const void *b)
{
	volatile int x = 0;
	spot(&x);
	return *(const int *)a - *(const int *)b;
}

__attribute__((noinline)) static void variable(int n)
{
	volatile int x = 0;
	char *room = __builtin_alloca(n);
	memset(room, n, n);
	spot(&x);
	if (n > 16)
		variable(n / 2);
	room[0] = x;
}

__attribute__((noinline, noreturn)) static void last(void)
{
	volatile int x;
	struct sigaction s = { .sa_sigaction = resume, .sa_flags = SA_SIGINFO };
	sigaction(SIGSEGV, &s, 0);
	leaf(&x);
	abort();
}

static void *thread(void *arg)
{
	variable(100);
	return arg;
}

int main(int argc, char **argv)
{
	int numbers[] = { 3, 1, 2 };
	pthread_t t;
	struct timespec now;
	variable(1000 + argc);
	qsort(numbers, 3, sizeof(*numbers), compare);
	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_create(&t, 0, thread, argv);
	pthread_join(t, 0);
	signal(SIGUSR1, handler);
	raise(SIGUSR1);
	last();
}
