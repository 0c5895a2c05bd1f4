/* A tree of processes: each adds what its two children send through pipes, in registers that were in use at the fork. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEPTH 4
#define TERMS 4000

struct part {
	long double sum;
	double product;
	int processes;
};

static void fail(const char *what)
{
	printf("expected %s, saw an error\n", what);
	fflush(stdout);
	_exit(1);
}

/* A leaf's part of a series. */
static struct part compute(int first)
{
	struct part part = {0.0L, 1.0, 1};
	for (int n = first; n < first + TERMS; n++) {
		part.sum += 1.0L / ((long double)n * n);
		part.product *= 1.0 - 1.0 / ((double)n * n * 4);
	}
	return part;
}

static void send(int to, const struct part *part)
{
	const char *at = (const char *)part;
	for (size_t done = 0; done < sizeof *part;) {
		ssize_t n = write(to, at + done, sizeof *part - done);
		if (n <= 0)
			fail("a pipe that takes a result");
		done += n;
	}
}

/* A part, and the end of the pipe behind it. */
static struct part receive(int from)
{
	struct part part;
	char *at = (char *)&part, more;
	for (size_t done = 0; done < sizeof part;) {
		ssize_t n = read(from, at + done, sizeof part - done);
		if (n <= 0)
			fail("a result from a pipe");
		done += n;
	}
	if (read(from, &more, 1) != 0)
		fail("a pipe's end");
	return part;
}

static struct part tree(int depth, int number)
{
	struct part part = compute(1 + number * TERMS);
	if (depth == 0)
		return part;
	int from[2];
	pid_t child[2];
	for (int i = 0; i < 2; i++) {
		int ends[2];
		if (pipe(ends))
			fail("a pipe");
		/* In use over the fork, here and in the child. */
		volatile double scale = 1.0 / (number + 3);
		double before = part.product * scale;
		child[i] = fork();
		if (child[i] < 0)
			fail("a child");
		if (part.product * scale != before)
			fail("a product in the registers that is the same after a fork");
		if (child[i] == 0) {
			close(ends[0]);
			struct part its = tree(depth - 1, 2 * number + 1 + i);
			send(ends[1], &its);
			_exit(depth);
		}
		close(ends[1]);
		from[i] = ends[0];
	}
	for (int i = 0; i < 2; i++) {
		struct part its = receive(from[i]);
		close(from[i]);
		int status;
		if (waitpid(child[i], &status, 0) != child[i] || !WIFEXITED(status) || WEXITSTATUS(status) != depth)
			fail("a child's exit status");
		part.sum += its.sum;
		part.product *= its.product;
		part.processes += its.processes;
	}
	return part;
}

int main(void)
{
	for (int depth = 0; depth <= DEPTH; depth++) {
		struct part part = tree(depth, 0);
		printf("%2d processes: sum %.21Lf %La, product %.17g\n", part.processes, part.sum, part.sum, part.product);
		fflush(stdout);
	}
	return 0;
}
