/* The Whetstone mix of H. J. Curnow and B. A. Wichmann ("A synthetic benchmark", The Computer Journal 19, 1976): its eleven modules
 * with their published weights, written anew. It prints what it computed and no time. Sine, cosine, arc tangent, exponential and
 * logarithm are the C library's, in double, which are made of + - * / alone. */

#include <math.h>
#include <stdio.h>

#define LOOPS 20

static const double t = 0.499975, t1 = 0.50025, t2 = 2.0;
static double e1[4];
static int j, k, l;

static void show(const char *module, int n, double a, double b, double c, double d)
{
	printf("%-10s %6d %3d %2d %2d %.17g %.17g %.17g %.17g\n", module, n, j, k, l, a, b, c, d);
}

/* One pass over four elements, each from all. */
static void pass(double e[4], double factor, double last)
{
	e[0] = (e[0] + e[1] + e[2] - e[3]) * factor;
	e[1] = (e[0] + e[1] - e[2] + e[3]) * factor;
	e[2] = (e[0] - e[1] + e[2] + e[3]) * factor;
	e[3] = (-e[0] + e[1] + e[2] + e[3]) * last;
}

static __attribute__((noinline)) void by_pointer(double e[4])
{
	for (int i = 0; i < 6; i++)
		pass(e, t, 1.0 / t2);
}

static __attribute__((noinline)) void by_values(double x, double y, double *z)
{
	x = t * (x + y);
	y = t * (x + y);
	*z = (x + y) / t2;
}

static __attribute__((noinline)) void exchange(void)
{
	e1[j] = e1[k];
	e1[k] = e1[l];
	e1[l] = e1[j];
}

static void start(double e[4])
{
	e[0] = 1.0;
	e[1] = e[2] = e[3] = -1.0;
}

int main(void)
{
	const int n2 = 12 * LOOPS, n3 = 14 * LOOPS, n4 = 345 * LOOPS, n6 = 210 * LOOPS, n7 = 32 * LOOPS, n8 = 899 * LOOPS,
		  n9 = 616 * LOOPS, n11 = 93 * LOOPS;
	double x[4];

	j = k = l = 0;
	start(x);
	show("1 simple", 0, x[0], x[1], x[2], x[3]);

	start(e1);
	for (int i = 0; i < n2; i++)
		pass(e1, t, t);
	show("2 array", n2, e1[0], e1[1], e1[2], e1[3]);

	start(e1);
	for (int i = 0; i < n3; i++)
		by_pointer(e1);
	show("3 pointer", n3, e1[0], e1[1], e1[2], e1[3]);

	j = 1;
	for (int i = 0; i < n4; i++) {
		j = j == 1 ? 2 : 3;
		j = j > 2 ? 0 : 1;
		j = j < 1 ? 1 : 0;
	}
	show("4 jumps", n4, e1[0], e1[1], e1[2], e1[3]);

	j = 1;
	k = 2;
	l = 3;
	for (int i = 0; i < n6; i++) {
		j = j * (k - j) * (l - k);
		k = l * k - (l - j) * k;
		l = (l - k) * (k + j);
		e1[l - 2] = j + k + l;
		e1[k - 2] = j * k * l;
	}
	show("6 integers", n6, e1[0], e1[1], e1[2], e1[3]);

	double a = 0.5, b = 0.5;
	for (int i = 0; i < n7; i++) {
		a = t * atan(t2 * sin(a) * cos(a) / (cos(a + b) + cos(a - b) - 1.0));
		b = t * atan(t2 * sin(b) * cos(b) / (cos(a + b) + cos(a - b) - 1.0));
	}
	show("7 trig", n7, a, b, sin(a), cos(b));

	double z = 1.0;
	for (int i = 0; i < n8; i++)
		by_values(1.0, 1.0, &z);
	show("8 calls", n8, 1.0, 1.0, z, z);

	j = 0;
	k = 1;
	l = 2;
	e1[0] = 1.0;
	e1[1] = 2.0;
	e1[2] = 3.0;
	for (int i = 0; i < n9; i++)
		exchange();
	show("9 exchange", n9, e1[0], e1[1], e1[2], e1[3]);

	double root = 0.75;
	for (int i = 0; i < n11; i++)
		root = sqrt(exp(log(root) / t1));
	show("11 library", n11, root, exp(root), log(root), sqrt(root));
	return 0;
}
