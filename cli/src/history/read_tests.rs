//! Each layout with a small file, and every way a row can be wrong.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::history::MALFORMED_KEPT_MAX;

const ETL_HEADER: &str = "hash,nonce,block_hash,block_number,transaction_index,from_address,\
                          to_address,value,gas,gas_price,input";
const XBLOCK_HEADER: &str = "blockNumber,timestamp,transactionHash,from,to,toCreate,\
                             fromIsContract,toIsContract,value,gasLimit,gasPrice,gasUsed";

fn history(input: &[u8]) -> Result<History, HistoryError> {
    let mut reader = HistoryReader::default();
    reader.add("input", input)?;
    Ok(reader.finish())
}

fn read(text: &str) -> History {
    let history = history(text.as_bytes()).unwrap();
    let counted = history.transfers.len() as u64 + history.skipped.total() + history.malformed.total;
    assert_eq!(history.rows, counted);
    history
}

/// `line from>to amount` of every transfer.
fn listed(history: &History) -> Vec<String> {
    let list = |t: &Transfer| {
        let (from, to) = history.names(t);
        format!("{} {from}>{to} {}", t.line, t.amount)
    };
    history.transfers.iter().map(list).collect()
}

fn reasons(history: &History) -> Vec<String> {
    history.malformed.first.iter().map(|m| format!("{} {}", m.line, m.reason)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn plain_in_any_order_among_other_columns() {
    for text in [
        "from,to,amount\na,b,5\nb,b,7\n",
        "seq,Amount,ts, TO ,tag,From\n0,5,1,b,xfer,a\n1,7,1,b,,b\n",
        "\u{feff}from,to,amount\r\na,b,5\r\nb,b,7",
        "\"from\",\"to\",\"amount\"\n\"a\",\"b\",\"5\"\n\"b\",b,\"7\"\n",
    ] {
        assert_eq!(listed(&read(text)), ["2 a>b 5", "3 b>b 7"], "{text:?}");
    }
}

#[test]
fn gzip_is_found_by_its_magic_in_one_member_or_several() {
    let mut parts = gzip(b"from,to,amount\na,b,5\n");
    parts.extend(gzip(b"b,a,6\n"));
    assert_eq!(listed(&history(&parts).unwrap()), ["2 a>b 5", "3 b>a 6"]);

    let whole = gzip("from,to,amount\na,b,5\n".repeat(100).as_bytes());
    for cut in 2..whole.len() {
        let error = history(&whole[..cut]).unwrap_err();
        assert_eq!(error.code(), "HISTORY_READ", "cut at {cut}");
    }
}

#[test]
fn skipped_rows_are_counted_and_name_accounts_only_with_a_receiver() {
    let history = read("from,to,amount\na,,5\nb,None,0\nc,d,0\nc,d,00\ne,f,1\n");
    assert_eq!(history.skipped, Skipped { no_receiver: 2, zero_amount: 2 });
    assert_eq!(listed(&history), ["6 e>f 1"]);
    let names: Vec<&str> = history.accounts.iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["c", "d", "e", "f"]);
    assert_eq!(history.rows, 5);
}

#[test]
fn malformed_rows_are_reported_by_line_and_never_guessed() {
    let max = u128::MAX;
    let text = format!(
        "from,to,amount\n\
         a,b,{max}\n\
         a,b,340282366920938463463374607431768211456\n\
         a,b,-1\n\
         \n\
         a,b,1.0\n\
         a,b,\n\
         ,b,1\n\
         a,b\n\
         a,b,1,2\n\
         a, b,1\n\
         a,\"b,1\n\
         a,\"b\"c,1\n\
         a,,x\n\
         None,b,1\n\
         \"a\nb\",c,1\n\
         b,a,2\n"
    );
    let history = read(&text);
    assert_eq!(listed(&history), [format!("2 a>b {max}"), "18 b>a 2".to_owned()]);
    let expected = [
        "3 the amount is larger than 340282366920938463463374607431768211455",
        "4 the amount is negative",
        "6 the amount is not a whole decimal number",
        "7 no amount",
        "8 no payer",
        "9 2 fields where the header has 3",
        "10 4 fields where the header has 3",
        "11 the account in `to` holds a control character, or a space at its start or end",
        "12 a quote is never closed",
        "13 text after a closing quote",
        "14 the amount is not a whole decimal number",
        "15 no payer",
        "16 the account in `from` holds a control character, or a space at its start or end",
    ];
    assert_eq!(reasons(&history), expected);
    assert_eq!(history.malformed.total, 13);
    assert_eq!(history.accounts.len(), 2);
}

#[test]
fn bytes_that_are_no_text_matter_only_where_an_account_is() {
    let history = history(b"note,from,to,amount\n\xff,a,b,1\nx,\xff,b,1\n").unwrap();
    assert_eq!(listed(&history), ["2 a>b 1"]);
    assert_eq!(reasons(&history), ["3 the account in `from` is not UTF-8"]);
}

#[test]
fn the_list_of_malformed_rows_is_bounded_and_the_count_is_not() {
    let rows = MALFORMED_KEPT_MAX + 10;
    let history = read(&format!("from,to,amount\n{}", "a,b,x\n".repeat(rows)));
    assert_eq!(history.malformed.total, rows as u64);
    assert_eq!(history.malformed.first.len(), MALFORMED_KEPT_MAX);
}

#[test]
fn ethereum_etl_is_executed_in_the_order_of_its_rows() {
    let text = format!(
        "{ETL_HEADER}\n\
         0x1,0,0xb,12,0,0xA,0xB,3,1,1,0x\n\
         0x2,0,0xb,9,10,0xC,0xD,4,1,1,0x\n\
         0x3,0,0xb,9,2,0xE,,0,1,1,0x60\n\
         0x4,0,0xb,,x,0xB,0xB,5,1,1,0x\n\
         0x5,0,0xb,9,9,0xB,0xC,five,1,1,0x\n\
         0x6,0,0xb,10,0,0xF,0xA,0,1,1,0x\n\
         0x7,0,0xb,12,0,0xG,0xA,1,1,1,0x\n"
    );
    let history = read(&text);
    assert_eq!(listed(&history), ["2 0xA>0xB 3", "3 0xC>0xD 4", "5 0xB>0xB 5", "8 0xG>0xA 1"]);
    assert_eq!(history.skipped, Skipped { no_receiver: 1, zero_amount: 1 });
    assert_eq!(reasons(&history), ["6 the amount is not a whole decimal number"]);
    assert!(history.accounts.get("0xF").is_some());
    assert!(history.accounts.get("0xE").is_none());
}

#[test]
fn ethereum_etl_needs_three_columns_only() {
    let history = read("from_address,to_address,value,gas\na,b,1,7\nb,a,2,3\nc,a,3,7\n");
    assert_eq!(listed(&history), ["2 a>b 1", "3 b>a 2", "4 c>a 3"]);
}

#[test]
fn xblock_skips_contract_creations() {
    let text = format!(
        "{XBLOCK_HEADER}\n\
         2,1,0x1,0xa,0xb,None,0,0,5000000000000000000,1,1,1\n\
         1,1,0x2,0xa,None,0xnew,0,1,7,1,1,1\n\
         2,1,0x3,0xa,0xc,None,0,1,0,1,1,1\n\
         2,1,0x4,0xb,0xb,None,1,1,1,1,1,1\n"
    );
    let history = read(&text);
    assert_eq!(listed(&history), ["2 0xa>0xb 5000000000000000000", "5 0xb>0xb 1"]);
    assert_eq!(history.skipped, Skipped { no_receiver: 1, zero_amount: 1 });
    assert_eq!(history.accounts.len(), 3);
}

#[test]
fn the_layout_is_told_by_the_header() {
    let layout = |header: &str| HistoryReader::default().add("h", header.as_bytes());
    assert_eq!(layout("from,to,amount").unwrap(), Layout::Plain);
    assert_eq!(layout(ETL_HEADER).unwrap(), Layout::EthereumEtl);
    assert_eq!(layout(XBLOCK_HEADER).unwrap(), Layout::XBlock);
}

#[test]
fn a_header_that_fits_nothing_is_an_error_that_says_what_would() {
    let table = [
        ("", "HISTORY_EMPTY", "must be a header"),
        ("\n\r\n", "HISTORY_EMPTY", "must be a header"),
        ("from,to\na,b\n", "HISTORY_UNKNOWN_LAYOUT", "`from,to` fits no known layout"),
        ("from,to,value\na,b,1\n", "HISTORY_UNKNOWN_LAYOUT", "from,to,amount"),
        ("from_address,to_address\n", "HISTORY_UNKNOWN_LAYOUT", "ethereum-etl"),
        ("a,b,5\n", "HISTORY_UNKNOWN_LAYOUT", "XBlock"),
        ("from,to,amount,from\n", "HISTORY_COLUMN_TWICE", "`from` twice"),
        ("from,to,\"amount\na,b,5\n", "HISTORY_HEADER", "never closed"),
        ("\0\u{1}\u{2}", "HISTORY_UNKNOWN_LAYOUT", "fits no known layout"),
    ];
    for (text, code, part) in table {
        let error = history(text.as_bytes()).unwrap_err();
        assert_eq!(error.code(), code, "{text:?}");
        let message = error.to_string();
        assert!(message.contains(part) && message.starts_with("input: "), "{message}");
    }
    let long = history("column,".repeat(10_000).as_bytes()).unwrap_err().to_string();
    assert!(long.len() < 600, "{}", long.len());
}

#[test]
fn several_files_are_one_history() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let header = "from_address,to_address,value,block_number,transaction_index\n";
    let late = file("late", gzip(format!("{header}a,b,1,8,0\na,b,,8,1\n").as_bytes()).as_slice());
    let early = file("early", format!("{header}b,a,2,7,0\n").as_bytes());
    let plain = file("plain", b"from,to,amount\nc,a,3\n");

    let numbered = HistoryReader::read_files([&early, &late]).unwrap();
    assert_eq!(listed(&numbered), ["2 b>a 2", "2 a>b 1"]);
    assert_eq!(numbered.malformed.first[0].file, 1);
    assert_eq!(numbered.malformed.first[0].line, 3);
    let mixed = HistoryReader::read_files([&late, &plain, &early]).unwrap();
    assert_eq!(listed(&mixed), ["2 a>b 1", "2 c>a 3", "2 b>a 2"]);
    assert_eq!(mixed.files.len(), 3);

    let missing = HistoryReader::read_files([folder.path().join("missing")]).unwrap_err();
    assert_eq!(missing.code(), "HISTORY_READ");
    assert!(missing.to_string().contains("missing"));
}
