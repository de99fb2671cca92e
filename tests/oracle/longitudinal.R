# Mixed models of several visits by lme4, of data simulated here; writes longitudinal.json.
suppressMessages({
  library(lme4)
  library(jsonlite)
})
set.seed(7)
visits <- c("baseline", "week 2", "followup", "week 12")
data <- expand.grid(site = c("elbow", "knee"), visit = visits, subject = sprintf("P%02d", 1:26), stringsAsFactors = FALSE)
data$arm <- ifelse(as.integer(factor(data$subject)) %% 2, "treatment", "comparator")
data$age <- round(rnorm(26, 40, 10))[as.integer(factor(data$subject))]
effect <- function(of, sd) rnorm(nlevels(factor(of)), 0, sd)[as.integer(factor(of))]
data$y <- round(3 + effect(data$subject, 1) + effect(paste(data$subject, data$site), 0.6) +
  effect(paste(data$subject, data$visit), 0.5) + 0.3 * match(data$visit, visits) +
  0.8 * (data$arm == "treatment" & data$visit == "followup") + rnorm(nrow(data), 0, 0.7), 4)
data <- data[runif(nrow(data)) > 0.15, ]

said <- function(fit, term) list(estimate = unname(fixef(fit)[term]), se = unname(sqrt(diag(as.matrix(vcov(fit)))[term])))
strict <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.1, rhoend = 1e-10, maxfun = 1e5))
data <- transform(data, visit = factor(visit, visits), arm = factor(arm), after = as.numeric(visit != "baseline"))
one <- subset(data, site == "elbow")
arms <- lmer(y ~ visit * arm + age + age:after + site + (1 | subject) + (1 | subject:site) + (1 | subject:visit), data, control = strict)
of_one <- lmer(y ~ visit * arm + (1 | subject), one, control = strict)
change <- lmer(y ~ visit + site + (1 | subject) + (1 | subject:site) + (1 | subject:visit), subset(data, arm == "treatment"), control = strict)
write_json(
  list(
    data = data[c("subject", "site", "visit", "arm", "age", "y")],
    arms = said(arms, "visitfollowup:armtreatment"),
    one_site = said(of_one, "visitfollowup:armtreatment"),
    change = said(change, "visitfollowup")
  ),
  "longitudinal.json", dataframe = "columns", digits = NA, auto_unbox = TRUE
)
