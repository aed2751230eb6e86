// Sleeps in read(2), which functions with frame pointers call through libc, which has none:
// sleeps HOW [thread].
#include <alloca.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))

// Keeps its registers and has a large frame.
ALONE long sleeper(long a, long b, long c, long d, long e, long f, long g, long h)
{
	char bytes[300];
	long n = read(0, bytes, 1);
	return a + b + c + d + e + f + g + h + n + bytes[0];
}

// Pushes arguments.
ALONE long plain(long n) { return sleeper(n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7) + n; }

// Has no frame of one size.
ALONE long grows(long n)
{
	char *bytes = alloca(n * 100);
	return read(0, bytes, 1) + bytes[0];
}

// Has a caller that nobody can find.
ALONE long smashed(long n)
{
	void **frame = __builtin_frame_address(0);
	char bytes[8];
	frame[0] = frame;
	frame[1] = (void *)16;
	return read(0, bytes, n) + bytes[0];
}

ALONE long middle(long n, long (*f)(long)) { return n > 0 ? middle(n - 1, f) * n : f(n + 7) + 1; }

ALONE void *outer(void *how)
{
	long (*f)(long) = !strcmp(how, "plain") ? plain : !strcmp(how, "grows") ? grows : smashed;
	return (void *)(middle(2, f) + 1);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	if (argc < 3)
		return outer(argv[1]) != 0;
	pthread_create(&thread, NULL, outer, argv[1]);
	return pthread_join(thread, NULL);
}
