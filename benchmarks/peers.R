# The peers in R. Rscript peers.R <folder> <task> <repeats> <draws>: prints JSON with the seconds of each repeat and what
# was computed, for comparison. <folder> has counts.bin (int32, features fastest), shape.txt, tree.nwk, dist.bin,
# design.tsv, as benchmarks/run.py writes them.
suppressMessages(library(vegan))
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]; task <- arguments[2]; repeats <- as.integer(arguments[3]); draws <- as.integer(arguments[4])
shape <- scan(file.path(folder, "shape.txt"), quiet = TRUE)
n <- shape[1]; p <- shape[2]; depth <- shape[3]

counts <- function() {
  x <- matrix(readBin(file.path(folder, "counts.bin"), "integer", n * p, size = 4), nrow = n, byrow = TRUE)
  dimnames(x) <- list(paste0("s", seq_len(n)), readLines(file.path(folder, "features.txt")))
  x
}

tasks <- list(
  rarefy = function() {
    x <- counts()
    function() {
      total <- 0
      for (i in seq_len(draws)) {
        y <- suppressWarnings(rrarefy(x, depth))
        total <- total + cbind(specnumber(y), diversity(y), diversity(y, "simpson"))
      }
      colMeans(total / draws)
    }
  },
  adonis2 = function() {
    d <- matrix(readBin(file.path(folder, "dist.bin"), "double", n * n), nrow = n)
    design <- read.delim(file.path(folder, "design.tsv"), stringsAsFactors = TRUE)
    d <- as.dist(d)
    plan <- permute::how(nperm = draws)
    function() {
      set.seed(1)
      adonis2(d ~ batch + visit, data = design, permutations = plan, by = "margin")$F[2]
    }
  },
  unifrac = function() {
    suppressMessages(library(phyloseq))
    cohort <- phyloseq(otu_table(counts(), taxa_are_rows = FALSE), ape::read.tree(file.path(folder, "tree.nwk")))
    function() mean(UniFrac(cohort, weighted = TRUE, normalized = FALSE, parallel = FALSE))
  }
)
run <- tasks[[task]]()
value <- NULL
seconds <- sapply(seq_len(repeats), function(i) system.time(value <<- run())[["elapsed"]])
cat(sprintf('{"seconds": [%s], "value": [%s], "versions": "R %s.%s, vegan %s"}\n',
  paste(seconds, collapse = ", "), paste(sprintf("%.10g", value), collapse = ", "),
  R.version$major, R.version$minor, packageVersion("vegan")))
