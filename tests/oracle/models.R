# lm with HC3 by hand, geepack and lme4 on the table's Shannon diversity; writes models.json.
suppressMessages({
  library(vegan)
  library(geepack)
  library(lme4)
  library(jsonlite)
})
counts <- as.matrix(read.delim("counts.tsv", row.names = 1))
data <- read.delim("metadata.tsv", row.names = 1, stringsAsFactors = TRUE)
data$shannon <- diversity(counts)

hc3 <- function(fit) {
  x <- model.matrix(fit)
  bread <- solve(crossprod(x))
  e <- residuals(fit) / (1 - hatvalues(fit))
  list(term = names(coef(fit)), estimate = unname(coef(fit)), se = unname(sqrt(diag(bread %*% crossprod(x * e) %*% bread))))
}
baseline <- subset(data, visit == "baseline")
group <- lm(shannon ~ group + age + sex, data = transform(baseline, group = relevel(group, "control")))

cases <- subset(data, group == "case")
start <- subset(cases, visit == "baseline")
end <- subset(cases, visit == "followup")
end <- end[match(start$subject, end$subject), ]
pairs <- transform(start, y0 = shannon, y1 = end$shannon, change = end$shannon - shannon,
                   treated = as.numeric(arm == "treatment"), improvement = 100 * (easi - end$easi) / easi)

cases <- cases[order(cases$subject), ]
cases$between <- ave(cases$easi, cases$subject)
cases$within <- cases$easi - cases$between
gee <- geeglm(shannon ~ between + within + age, id = subject, data = cases, corstr = "exchangeable")
mixed <- lmer(shannon ~ between + within + age + (1 | subject), data = cases, REML = TRUE)
write_json(
  list(
    shannon = unname(data$shannon),
    group = hc3(group),
    ancova = hc3(lm(y1 ~ treated + y0 + age + sex, data = pairs)),
    change = hc3(lm(change ~ treated + age + sex, data = pairs)),
    direct = hc3(lm(y1 ~ treated + y0 + age + improvement, data = pairs)),
    on_mediator = hc3(lm(improvement ~ treated + y0 + age, data = pairs)),
    total = hc3(lm(y1 ~ treated + y0 + age, data = pairs)),
    gee = unname(coef(gee)[c("between", "within")]),
    lme4 = unname(fixef(mixed)[c("between", "within")]),
    mcnemar_exact = binom.test(1, 9)$p.value
  ),
  "models.json", digits = NA, auto_unbox = TRUE
)
