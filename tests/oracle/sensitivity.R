# The robustness value by search instead of a formula, nested lm, and mice; writes sensitivity.json.
suppressMessages({
  library(mice)
  library(jsonlite)
})
models <- fromJSON("models.json")
data <- read.delim("metadata.tsv", row.names = 1, stringsAsFactors = TRUE)
data$shannon <- models$shannon
cases <- subset(data, group == "case")
start <- subset(cases, visit == "baseline")
end <- subset(cases, visit == "followup")
end <- end[match(start$subject, end$subject), ]
pairs <- transform(start, y0 = shannon, y1 = end$shannon, treated = as.numeric(arm == "treatment"), batch = droplevels(batch))

# The least share of the treatment's variance at which some cause, of no larger a share of the outcome's, takes t to its
# critical value: estimate and error with the cause in the model, as omitted variable bias has them (error 1, estimate t).
robustness <- function(t, df, alpha) {
  critical <- qt(1 - alpha / 2, df - 1)
  smallest <- function(r) {
    adjusted <- function(y) (t - sqrt(df * y * r / (1 - r))) / sqrt((1 - y) / (1 - r) * df / (df - 1))
    min(optimize(adjusted, c(0, r), tol = 1e-12)$objective, adjusted(r))
  }
  uniroot(function(r) smallest(r) - critical, c(1e-9, 1 - 1e-9), tol = 1e-12)$root
}
asked <- data.frame(t = c(4.18, 4.18, 2.5, 30, 9), df = c(783, 783, 20, 8, 15), alpha = c(1, 0.05, 0.05, 0.05, 0.01))
asked$value <- mapply(robustness, asked$t, asked$df, asked$alpha)

# Share of the variance left by the others that a covariate explains, from the F test of nested models.
explained <- function(outcome, others, covariate) {
  fit <- function(terms) lm(reformulate(terms, outcome), data = pairs)
  f <- anova(fit(others), fit(c(others, covariate)))[2, ]
  with(f, F * Df / (F * Df + Res.Df))
}
covariates <- c("y0", "age", "sex", "batch")
strength <- lapply(setNames(covariates, covariates), function(covariate) {
  others <- setdiff(covariates, covariate)
  list(outcome = explained("y1", c("treated", others), covariate), term = explained("treated", others, covariate))
})

lost <- pairs[c("treated", "age", "y0", "y1")]
lost$y1[c(2, 7, 11, 16)] <- NA
lost$y0[c(5, 14)] <- NA
filled <- mice(lost, m = 1000, method = "norm", maxit = 10, seed = 1, printFlag = FALSE)
pooled <- summary(pool(with(filled, lm(y1 ~ treated + y0 + age))))
treated <- pooled[pooled$term == "treated", ]
few <- pool.scalar(c(1.2, 0.8, 1.5, 1.1), c(0.3, 0.35, 0.28, 0.4)^2, n = 21, k = 1)
many <- pool.scalar(c(1.2, 0.8, 1.5, 1.1), c(0.3, 0.35, 0.28, 0.4)^2)
write_json(
  list(
    robustness = asked,
    strength = strength,
    mice = list(estimate = treated$estimate, se = treated$std.error, df = treated$df),
    rubin = list(finite = few[c("qbar", "t", "df")], infinite = many[c("qbar", "t", "df")])
  ),
  "sensitivity.json", digits = NA, auto_unbox = TRUE
)
