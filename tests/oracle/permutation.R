# vegan's adonis2 and betadisper on counts.tsv and metadata.tsv; writes permutation.json.
suppressMessages({
  library(vegan)
  library(permute)
  library(jsonlite)
})
counts <- as.matrix(read.delim("counts.tsv", row.names = 1))
design <- read.delim("metadata.tsv", row.names = 1, stringsAsFactors = TRUE)
bray <- vegdist(counts, "bray")
free <- how(nperm = 9999)

answer <- function(formula) {
  set.seed(1)
  fit <- adonis2(formula, data = design, permutations = free, by = "margin")
  list(
    term = rownames(fit), df = fit$Df, sum_of_squares = fit$SumOfSqs, r2 = fit$R2,
    pseudo_f = fit$F, p_value = fit$`Pr(>F)`
  )
}
spread <- betadisper(bray, design$group, type = "centroid")
set.seed(2)
write_json(
  list(
    margin = answer(bray ~ age + batch + group),
    dispersion = list(
      f = anova(spread)$F[1],
      p_value = permutest(spread, permutations = free)$tab$`Pr(>F)`[1]
    )
  ),
  "permutation.json", digits = NA, na = "null", auto_unbox = TRUE
)
