# Objects of R that hold a study: the small table as a phyloseq; as an object whose slots are those of a
# TreeSummarizedExperiment (of the packages that define them, S4Vectors and IRanges); and as a matrix, as DADA2 saves it.
suppressMessages({library(phyloseq); library(S4Vectors); library(IRanges); library(ape); library(Matrix)})
counts <- as.matrix(read.delim("counts.tsv", row.names = 1))[1:8, 1:12]
metadata <- read.delim("metadata.tsv", row.names = 1, stringsAsFactors = TRUE)[1:8, ]
metadata$taken <- as.Date("2021-03-04") + 0:7
metadata$smoker <- c(TRUE, FALSE, NA)[c(1, 2, 3, 1, 2, 3, 1, 2)]
taxonomy <- cbind(Kingdom = "Bacteria", Genus = rep(c("Staphylococcus", NA), 6), Species = rep(c("aureus", NA, "hominis"), 4))
rownames(taxonomy) <- colnames(counts)
tree <- keep.tip(read.tree("tree.nwk"), colnames(counts))

whole <- phyloseq(otu_table(counts, taxa_are_rows = FALSE), tax_table(taxonomy), sample_data(metadata), phy_tree(tree))
saveRDS(whole, "phyloseq.rds")
save(whole, file = "phyloseq.rda", compress = "xz")

setClass("Assays", slots = c(data = "ANY"))
setClass("Experiment", slots = c(
  rowTree = "ANY", rowRanges = "ANY", colData = "ANY", assays = "ANY", NAMES = "ANY", elementMetadata = "ANY"
))
ranges <- relist(IRanges(), PartitioningByEnd(integer(ncol(counts)), names = colnames(counts)))
mcols(ranges) <- DataFrame(taxonomy, row.names = colnames(counts))
bare <- function(x) unname(t(x))
saveRDS(new("Experiment",
  rowTree = list(phylo = tree), rowRanges = ranges, colData = DataFrame(metadata), NAMES = NULL,
  assays = new("Assays", data = SimpleList(relabundance = bare(counts / rowSums(counts)),
                                           counts = Matrix(bare(counts), sparse = TRUE))),
  elementMetadata = DataFrame(row.names = colnames(counts))[, FALSE]
), "experiment.rds")

saveRDS(counts, "seqtab.rds", compress = "bzip2")
