/* Matrices and lists of many sizes, made and freed all the time, with arithmetic on what is in them. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

struct matrix {
	int n;
	double *at;
};

static void fail(const char *what)
{
	printf("expected %s, saw none\n", what);
	exit(1);
}

static struct matrix matrix(int n)
{
	struct matrix m = {n, calloc((size_t)n * n, sizeof *m.at)};
	if (!m.at)
		fail("memory for a matrix");
	return m;
}

static struct matrix random_matrix(int n)
{
	struct matrix m = matrix(n);
	for (int i = 0; i < n * n; i++)
		m.at[i] = (double)(int64_t)(next() >> 12) / (1ll << 51) - 1.0;
	return m;
}

static struct matrix multiply(struct matrix a, struct matrix b)
{
	struct matrix c = matrix(a.n);
	for (int i = 0; i < a.n; i++)
		for (int k = 0; k < a.n; k++)
			for (int j = 0; j < a.n; j++)
				c.at[i * a.n + j] += a.at[i * a.n + k] * b.at[k * a.n + j];
	return c;
}

/* A power by squaring: every step makes a matrix and frees one. */
static double trace_of_power(int n, int power)
{
	struct matrix base = random_matrix(n), product = matrix(n);
	for (int i = 0; i < n; i++)
		product.at[i * n + i] = 1.0;
	for (int i = 0; i < n * n; i++)
		base.at[i] /= n;
	for (; power; power >>= 1) {
		if (power & 1) {
			struct matrix more = multiply(product, base);
			free(product.at);
			product = more;
		}
		struct matrix square = multiply(base, base);
		free(base.at);
		base = square;
	}
	double trace = 0.0;
	for (int i = 0; i < n; i++)
		trace += product.at[i * n + i];
	free(base.at);
	free(product.at);
	return trace;
}

struct node {
	struct node *next;
	double value;
	size_t bytes;
	unsigned char rest[];
};

/* Blocks from 24 bytes to 300 KB, of which a few hundred live at a time; each is full of its own byte until it is freed. */
static double churn(int rounds)
{
	struct node *lists[16] = {0};
	double sum = 0.0;
	for (int round = 0; round < rounds; round++) {
		struct node **list = &lists[next() % 16];
		if (next() % 5 < 3 || !*list) {
			size_t bytes = next() % 100 ? next() % 2000 : next() % 300000;
			struct node *node = malloc(sizeof *node + bytes);
			if (!node)
				fail("memory for a node");
			node->next = *list;
			node->value = (double)(next() >> 11) * 0x1p-53;
			node->bytes = bytes;
			memset(node->rest, (int)(bytes & 0xff), bytes);
			*list = node;
		} else {
			struct node *node = *list;
			*list = node->next;
			for (size_t i = 0; i < node->bytes; i += 97)
				if (node->rest[i] != (node->bytes & 0xff))
					fail("a block's own byte");
			sum = sum * 0.999 + node->value;
			free(node);
		}
	}
	for (int i = 0; i < 16; i++)
		while (lists[i]) {
			struct node *node = lists[i];
			lists[i] = node->next;
			sum = sum * 0.999 + node->value;
			free(node);
		}
	return sum;
}

int main(void)
{
	for (int n = 2; n <= 32; n += 6)
		printf("trace, %2d: %.17g\n", n, trace_of_power(n, 13));
	for (int rounds = 1000; rounds <= 8000; rounds *= 2)
		printf("churn, %5d: %.17g\n", rounds, churn(rounds));
	return 0;
}
