/* Signals over a computation: the handlers compute too, in other rounding modes, and the interrupted sums must not notice. */

#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t handled;
static long double in_handler = 1.0L;
static double vector[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static sigjmp_buf back;

static void fail(const char *what)
{
	printf("expected %s\n", what);
	fflush(stdout);
	_exit(1);
}

static void on_usr1(int signal, siginfo_t *info, void *context)
{
	(void)context;
	if (signal != SIGUSR1 || info->si_signo != signal)
		fail("the signal's number");
	if (fegetround() != FE_TONEAREST)
		fail("a handler to begin with the initial state");
	fesetround(handled % 2 ? FE_UPWARD : FE_TOWARDZERO);
	for (int i = 0; i < 20; i++) {
		in_handler = in_handler / 1.1L + 0.3L;
		for (int j = 0; j < 8; j++)
			vector[j] = vector[j] * 0.75 + 1.0 / (j + 1);
	}
	handled++;
}

static void on_fpe(int signal)
{
	(void)signal;
	vector[0] /= 3.0;
	siglongjmp(back, 1);
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigemptyset(&action.sa_mask);
	if (sigaction(signal, &action, 0))
		fail("a handler to be installed");
}

/* A sum that is interrupted in its middle again and again, and one that is not. */
static void sums(void)
{
	for (int mode = 0; mode < 4; mode++) {
		static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
		fesetround(modes[mode]);
		volatile double third = 3.0, tenth = 10.0;
		double sum = 0.0, plain = 0.0;
		long double wide = 0.0L, plain_wide = 0.0L;
		for (int i = 1; i <= 3000; i++) {
			plain += 1.0 / (third * i) + 1.0 / tenth;
			plain_wide += 1.0L / i;
		}
		for (int i = 1; i <= 3000; i++) {
			sum += 1.0 / (third * i) + 1.0 / tenth;
			wide += 1.0L / i;
			if (i % 100 == 0 && raise(SIGUSR1))
				fail("a signal to be sent");
			if (fegetround() != modes[mode])
				fail("the rounding mode from before the signal");
		}
		if (sum != plain || wide != plain_wide)
			fail("a sum that no signal changes");
		fesetround(FE_TONEAREST);
		printf("mode %d: %.17g %.21Lg\n", mode, sum, wide);
	}
	printf("%d signals, their handlers' own: %.21Lg %.17g\n", (int)handled, in_handler, vector[7]);
}

/* An exception of the processor, out of which the handler jumps. */
static void divisions(void)
{
	struct sigaction action = {.sa_handler = on_fpe};
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGFPE, &action, 0))
		fail("a handler to be installed");
	volatile int zero = 0, caught = 0;
	for (volatile int i = 0; i < 10; i++) {
		if (sigsetjmp(back, 1) == 0)
			printf("never: %d\n", 7 / zero);
		else
			caught++;
	}
	printf("%d divisions by zero were caught: %.17g\n", caught, vector[0]);
}

/* A child computes until its parent's signals have all come. */
static void processes(void)
{
	int ends[2];
	sigset_t block, before;
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	if (pipe(ends) || sigprocmask(SIG_BLOCK, &block, &before))
		fail("a pipe and a mask");
	handled = 0;
	fflush(stdout);
	pid_t child = fork();
	if (child < 0)
		fail("a child");
	if (child == 0) {
		close(ends[0]);
		sigprocmask(SIG_SETMASK, &before, 0);
		double x = 0.5, y = 0.5;
		for (int round = 0; round < 5; round++) {
			char byte = (char)round;
			if (write(ends[1], &byte, 1) != 1)
				_exit(2);
			while (handled == round)
				x = 3.75 * x * (1.0 - x);
			y = 3.75 * y * (1.0 - y);
		}
		_exit(y > 0.0 && x > 0.0 && x < 1.0 ? 17 : 1);
	}
	close(ends[1]);
	char byte;
	int n = 0, status;
	while (read(ends[0], &byte, 1) == 1) {
		if (kill(child, SIGUSR1))
			fail("a signal to a child");
		n++;
	}
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 17)
		fail("a child that saw all its signals");
	printf("%d signals to a child\n", n);
}

int main(void)
{
	install(SIGUSR1, on_usr1);
	sums();
	divisions();
	processes();
	return 0;
}
