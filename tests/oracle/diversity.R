# Diversity of the small table, by vegan, phyloseq and ape.
suppressMessages({
  library(vegan)
  library(phyloseq)
  library(ape)
})

counts <- as.matrix(read.delim("counts.tsv", row.names = 1))
tree <- read.tree("tree.nwk")
depth <- 125 # the shallowest swab has as many
some <- rownames(counts)[seq(1, nrow(counts), by = 3)] # the distances of 20 swabs will do
drawn <- rownames(counts)[seq(1, nrow(counts), by = 8)] # and the draws of 8

# Faith's PD by hand: the tips below each branch, from ape's order in which children come before their parents.
below <- matrix(0, nrow(counts), max(tree$edge))
below[, seq_along(tree$tip.label)] <- counts[, tree$tip.label]
edges <- reorder(tree, "postorder")
for (i in seq_len(nrow(edges$edge))) {
  parent <- edges$edge[i, 1]
  below[, parent] <- below[, parent] + below[, edges$edge[i, 2]]
}
below <- below[, edges$edge[, 2]]
observed_pd <- drop((below > 0) %*% edges$edge.length)
missed <- exp(lchoose(rowSums(counts) - below, depth) - lchoose(rowSums(counts), depth))
expected_pd <- drop((1 - missed) %*% edges$edge.length)

# What all the metrics are on average, over 10,000 rarefied tables of the 8 swabs.
set.seed(1)
branches <- sapply(edges$edge[, 2], function(node) {
  tips <- if (node <= Ntip(tree)) tree$tip.label[node] else extract.clade(tree, node)$tip.label
  colnames(counts) %in% tips
})
draws <- replicate(10000, {
  table <- rrarefy(counts[drawn, ], depth)
  cbind(
    shannon = diversity(table, "shannon"), simpson = diversity(table, "simpson"),
    faith_pd = drop((table %*% branches > 0) %*% edges$edge.length)
  )
})

# One more feature fills each swab up to the deepest, so that rarefying to that depth takes every read.
filled <- cbind(counts, rest = max(rowSums(counts)) - rowSums(counts))

lower <- function(distances) {
  m <- as.matrix(distances)[some, some]
  m[lower.tri(m)]
}
both <- phyloseq(otu_table(counts, taxa_are_rows = FALSE), phy_tree(tree))
result <- list(
  depth = depth,
  richness = as.list(rarefy(counts, depth)[rownames(counts)]),
  richness_deep = as.list(rarefy(counts[some, ], 200)[rowSums(counts[some, ]) >= 200]),
  observed_pd = as.list(setNames(observed_pd, rownames(counts))),
  expected_pd = as.list(setNames(expected_pd, rownames(counts))),
  draws = list(
    swabs = drawn,
    mean = as.data.frame(apply(draws, 1:2, mean)),
    se = as.data.frame(apply(draws, 1:2, sd) / sqrt(10000))
  ),
  distances = list(
    swabs = some,
    bray_curtis_filled = lower(vegdist(filled, "bray")),
    aitchison = lower(vegdist(counts, "aitchison", pseudocount = 0.5)),
    unweighted_unifrac = lower(UniFrac(both, weighted = FALSE)),
    weighted_unifrac = lower(UniFrac(both, weighted = TRUE, normalized = FALSE))
  )
)
jsonlite::write_json(result, "diversity.json", digits = NA, auto_unbox = TRUE, dataframe = "columns")
