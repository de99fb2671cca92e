# metafor's random effects; the product of two t variables and the power of equivalence by numerical integration;
# writes inference.json. Needs no data.
suppressMessages({
  library(metafor)
  library(jsonlite)
})

pooled <- function(effects, errors) {
  fit <- rma(effects, errors^2, method = "PM", test = "knha", control = list(tol = 1e-12, maxiter = 1000))
  list(effects = effects, errors = errors, tau2 = fit$tau2, estimate = fit$beta[1], se = fit$se,
       low = fit$ci.lb, high = fit$ci.ub, p = fit$pval, df = fit$ddf[1])
}

# P(AB < x) over the density of A, piece by piece; the limits by bisection.
product <- function(a, a_se, a_df, b, b_se, b_df, alpha) {
  cuts <- c(-Inf, a - 20 * a_se, a - 2 * a_se, a, a + 2 * a_se, a + 20 * a_se, Inf)
  cuts <- unique(sort(c(cuts, c(-1, -1e-2, -1e-4, 0, 1e-4, 1e-2, 1) * a_se)))
  below <- function(x) {
    f <- function(u) dt((u - a) / a_se, a_df) / a_se * pt(sign(u) * (x / u - b) / b_se, b_df)
    sum(mapply(function(l, h) integrate(f, l, h, rel.tol = 1e-10, subdivisions = 2000)$value, head(cuts, -1), cuts[-1]))
  }
  far <- 1e3 * (abs(a) + a_se) * (abs(b) + b_se)
  limit <- function(level) uniroot(function(x) below(x) - level, c(-far, far), tol = 1e-10)$root
  list(a = list(estimate = a, se = a_se, df = a_df), b = list(estimate = b, se = b_se, df = b_df), alpha = alpha,
       low = limit(alpha / 2), high = limit(1 - alpha / 2), p = 2 * min(below(0), 1 - below(0)))
}

# Power if there is no effect: noncentral t for one side, over the chi-square of the error for two.
power_of <- function(margin, se, df, sign, alpha) {
  t <- qt(1 - alpha, df)
  if (sign != 0) return(pt(t, df, ncp = margin / se, lower.tail = FALSE))
  f <- function(x) dchisq(x, df) * (2 * pnorm(margin / se - t * sqrt(x / df)) - 1)
  integrate(f, 0, df * (margin / se / t)^2, rel.tol = 1e-10)$value
}
reach <- function(se, df, n, margin, sign, alpha, power) {
  needed <- n - df + 1
  while (power_of(margin, se * sqrt(n / needed), df + needed - n, sign, alpha) < power) needed <- needed + 1
  list(se = se, df = df, n = n, margin = margin, sign = sign, alpha = alpha, power = power,
       power_equivalence = power_of(margin, se, df, sign, alpha), n_needed = needed,
       reachable_margin = uniroot(function(m) power_of(m, se, df, sign, alpha) - power, c(0.1, 20) * se, tol = 1e-10)$root)
}

write_json(
  list(
    pooled = list(
      pooled(c(0.42, -0.15, 0.88, 0.31), c(0.20, 0.25, 0.22, 0.18)),
      pooled(c(1.02, 1.00, 1.03, 1.01, 0.99), c(0.10, 0.20, 0.15, 0.40, 0.12)),
      pooled(c(-3, 10, 12), c(1, 6, 0.5))
    ),
    product = list(
      product(0.5, 0.2, 128, 0.4, 0.15, 127, 0.05),
      product(-0.3, 0.2, 12, 0.6, 0.5, 8, 0.1),
      product(0, 1, 5, 0, 2, 4, 0.05)
    ),
    reach = list(
      reach(0.9, 19, 21, 1.2, 0, 0.05, 0.8),
      reach(0.9, 19, 21, 1.2, -1, 0.05, 0.8),
      reach(0.05, 125, 131, 0.15, 0, 0.01, 0.9),
      reach(0.05, 125, 131, 0.15, 1, 0.01, 0.9)
    )
  ),
  "inference.json", digits = NA, auto_unbox = TRUE
)
