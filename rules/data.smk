# Needs: nothing; the files come from a source in the configuration or from the per-user cache.
# Makes: results/data.h5, the verified data set; results/splits.h5, the indices of P1 and P2; results/pictures.h5, photographs.


# A function, though it has no wildcards: in a plain parameter Snakemake would take the {8} of a pattern for a wildcard.
def fetch_settings(wildcards):
    return settings("fetch_images", **section_settings(CONFIG.data, "sources"))


rule fetch_images:
    """Obtain the data set's files from the first source that has them, and verify their SHA-256."""
    output:
        "results/data.h5",
    log:
        "results/logs/fetch_images.log",
    benchmark:
        "results/benchmarks/fetch_images.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
        disk_mb=1000,  # by default 50 GB, where a profile has any default resources
    params:
        settings=fetch_settings,
        sources=sources_of(lambda wildcards: CONFIG.data),
    message:
        "Obtaining and verifying the data set"
    shell:
        "exec python -P -m scripts.fetch_images --unrecorded {params.sources:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


rule split_images:
    """Draw the parts of the training images, such as P1 and P2."""
    input:
        data="results/data.h5",
    output:
        "results/splits.h5",
    log:
        "results/logs/split_images.log",
    benchmark:
        "results/benchmarks/split_images.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=1000,
    params:
        settings=settings("split_images", **section_settings(CONFIG.splits)),
    message:
        "Splitting the training images"
    shell:
        "exec python -P -m scripts.split_images --data {input.data:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"


def fetch_pictures_settings(wildcards):
    return settings("fetch_pictures", **section_settings(CONFIG.pictures, "sources", "attack"))


rule fetch_pictures:
    """Obtain the photographs, or read those of a folder."""
    output:
        "results/pictures.h5",
    log:
        "results/logs/fetch_pictures.log",
    benchmark:
        "results/benchmarks/fetch_pictures.tsv"
    localrule: True
    conda:
        "../envs/environment.yaml"
    resources:
        cpu=cpu,
        mem_mb=2000,
        disk_mb=1000,  # by default 50 GB, where a profile has any default resources
    params:
        settings=fetch_pictures_settings,
        sources=sources_of(lambda wildcards: CONFIG.pictures),
    message:
        "Obtaining the pictures"
    shell:
        "exec python -P -m scripts.fetch_pictures --unrecorded {params.sources:q}"
        " --output {output:q} --settings {params.settings:q} --log {log:q}"
