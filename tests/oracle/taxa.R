# Centred log-ratios, lm with HC3 by hand and the mode of the coefficients; writes taxa.json.
suppressMessages(library(jsonlite))
counts <- as.matrix(read.delim("counts.tsv", row.names = 1))
data <- read.delim("metadata.tsv", row.names = 1, stringsAsFactors = TRUE)
counts <- counts[, order(-colSums(counts > 0), colnames(counts))[1:30]]
logs <- log(counts + 0.5)
clr <- logs - rowMeans(logs)

answer <- function(y, frame, formula) {
  x <- model.matrix(formula, frame)
  bread <- solve(crossprod(x))
  fit <- lm.fit(x, y)
  leverage <- diag(x %*% bread %*% t(x))
  coefficient <- matrix(fit$coefficients, nrow = ncol(x), dimnames = list(colnames(x), colnames(y)))
  k <- if (ncol(x) == 1) 1 else 2
  se <- apply(as.matrix(fit$residuals), 2, function(e) sqrt(diag(bread %*% crossprod(x * e / (1 - leverage)) %*% bread))[k])
  d <- density(coefficient[k, ], bw = "nrd0", n = 2^15)
  list(coefficient = unname(coefficient[k, ]), se = unname(se), mode = d$x[which.max(d$y)])
}
first <- which(data$visit == "baseline")
last <- which(data$visit == "followup")
last <- last[match(data$subject[first], data$subject[last])]
start <- data[first, ]
change <- (clr[last, ] - clr[first, ])[start$group == "case", ]
cases <- transform(start[start$group == "case", ], treated = arm == "treatment")
write_json(
  list(
    taxa = colnames(counts),
    baseline = answer(clr[first, ], transform(start, case = group == "case"), ~ case + age + sex),
    arms = answer(change, cases, ~ treated + age),
    within = answer(change[cases$treated, ], cases[cases$treated, ], ~ 1)
  ),
  "taxa.json", digits = NA, auto_unbox = TRUE
)
