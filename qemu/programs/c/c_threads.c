/* Threads that take pieces of work under a mutex and compute them at the same time, in double and in long double. Which thread takes
 * which piece is chance; what comes out of a piece is not. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 4
#define PIECES 48
#define STEPS 3000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int next_piece, done;
static double integrals[PIECES];
static long double sums[PIECES];
static __thread double own;

static void fail(const char *what)
{
	printf("expected %s\n", what);
	fflush(stdout);
	_exit(1);
}

/* The integral of 4 / (1 + x * x) over a piece of 0 to 1, by Simpson's rule. */
static double integral(int piece)
{
	double width = 1.0 / PIECES, h = width / (2 * STEPS), from = piece * width, sum = 0.0;
	for (int i = 0; i <= 2 * STEPS; i++) {
		double x = from + i * h, weight = i % (2 * STEPS) == 0 ? 1.0 : i % 2 ? 4.0 : 2.0;
		sum += weight * 4.0 / (1.0 + x * x);
	}
	return sum * h / 3.0;
}

static long double harmonic(int piece)
{
	long double sum = 0.0L;
	for (int n = 1; n <= STEPS; n++)
		sum += 1.0L / (piece * STEPS + n);
	return sum;
}

static void *work(void *argument)
{
	const int number = *(int *)argument;
	int mine = 0;
	own = number + 0.5;
	for (;;) {
		pthread_mutex_lock(&lock);
		int piece = next_piece < PIECES ? next_piece++ : -1;
		pthread_mutex_unlock(&lock);
		if (piece < 0)
			break;
		double twice = integral(piece);
		integrals[piece] = integral(piece);
		sums[piece] = harmonic(piece);
		if (twice != integrals[piece])
			fail("the same integral twice");
		own += 1.0;
		mine++;
		pthread_mutex_lock(&lock);
		done++;
		pthread_mutex_unlock(&lock);
	}
	if (own != number + 0.5 + mine)
		fail("a thread's own variable to be its own");
	return (void *)(long)mine;
}

int main(void)
{
	for (int round = 0; round < 3; round++) {
		pthread_t threads[THREADS];
		int numbers[THREADS];
		next_piece = done = 0;
		for (int i = 0; i < THREADS; i++) {
			numbers[i] = i;
			if (pthread_create(&threads[i], 0, work, &numbers[i]))
				fail("a thread");
		}
		long total = 0;
		for (int i = 0; i < THREADS; i++) {
			void *mine;
			if (pthread_join(threads[i], &mine))
				fail("a thread's end");
			total += (long)mine;
		}
		if (total != PIECES || done != PIECES)
			fail("every piece once");
		double pi = 0.0;
		long double sum = 0.0L;
		for (int i = 0; i < PIECES; i++) {
			pi += integrals[i];
			sum += sums[i];
			integrals[i] = 0.0;
			sums[i] = 0.0L;
		}
		printf("%d pieces: pi %.17g %a, harmonic %.21Lf %La\n", done, pi, pi, sum, sum);
	}
	return 0;
}
