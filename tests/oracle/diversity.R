# vegan, phyloseq and ape on counts.tsv and tree.nwk; writes diversity.json.
suppressMessages({
  library(vegan)
  library(phyloseq)
  library(jsonlite)
})
counts <- as.matrix(read.delim("counts.tsv", row.names = 1))
tree <- ape::read.tree("tree.nwk")
depth <- 125
set.seed(1)

# Faith's PD down to the root, by hand: the branches above the tips that are present.
faith <- function(x) {
  paths <- ape::nodepath(tree)  # from the root to each tip
  apply(x, 1, function(row) {
    nodes <- unique(unlist(paths[match(colnames(x)[row > 0], tree$tip.label)]))
    sum(tree$edge.length[tree$edge[, 2] %in% nodes])
  })
}

# One subsample of 20 swabs, of which the distances are taken.
drawn <- rrarefy(counts[1:20, ], depth)

# 10,000 subsamples of 6 swabs: mean and standard error.
some <- counts[c(1, 12, 23, 34, 45, 56), ]
draws <- replicate(10000, {
  y <- rrarefy(some, depth)
  cbind(shannon = diversity(y), simpson = diversity(y, "simpson"), observed_features = specnumber(y), faith_pd = faith(y))
})
cohort <- phyloseq(otu_table(counts[1:20, ], taxa_are_rows = FALSE), tree)
unifrac <- function(...) as.matrix(UniFrac(cohort, ...))
write_json(
  list(
    rarefy = as.numeric(rarefy(counts, depth)),
    faith = as.numeric(faith(counts)),
    drawn = list(swabs = rownames(drawn), counts = unname(drawn)),
    bray = unname(as.matrix(vegdist(drawn, "bray"))),
    subsamples = list(
      swabs = rownames(some), metrics = colnames(draws[, , 1]),
      mean = unname(apply(draws, 1:2, mean)), error = unname(apply(draws, 1:2, sd) / sqrt(10000))
    ),
    unifrac = list(
      swabs = rownames(counts)[1:20],
      weighted = unname(unifrac(weighted = TRUE, normalized = FALSE)),
      normalized = unname(unifrac(weighted = TRUE, normalized = TRUE)),
      unweighted = unname(unifrac(weighted = FALSE))
    )
  ),
  "diversity.json", digits = NA, auto_unbox = TRUE
)
