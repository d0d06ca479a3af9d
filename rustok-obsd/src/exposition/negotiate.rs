//! Content negotiation (RFC 9110, sections 12.4.2, 12.5.1 and 12.5.3).
//!
//! Reads: `Accept` and `Accept-Encoding`. Yields: the format and whether to compress. Costs: no allocation.
//!
//! Nothing acceptable is no error: as Prometheus' own clients do, text format 0.0.4 is sent then.

use super::Format;

/// Chooses the format for the values of `Accept`.
#[must_use]
pub fn format<'a>(accept: impl Iterator<Item = &'a str>) -> Format {
    // For each format the most specific range counts; of the formats, the one with the highest quality, then the one that
    // was named more exactly, then the one named first.
    let mut text: Option<Match> = None;
    let mut openmetrics: Option<Match> = None;
    let ranges = accept.flat_map(|value| split(value, ','));
    for (position, range) in ranges.enumerate() {
        let mut parts = split(range, ';');
        let media = parts.next().unwrap_or("");
        let (mut quality, mut version) = (1000, None);
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("q") {
                quality = parse_quality(value);
            } else if name.eq_ignore_ascii_case("version") {
                version = Some(value);
            }
            // Others, such as `escaping` and `charset`, do not change what is sent: our names are plain.
        }
        let is = |name: &str| media.eq_ignore_ascii_case(name);
        let versioned = |wanted: &str| version.is_none_or(|version| version == wanted);
        let offer = |slot: &mut Option<Match>, specificity| {
            if slot.is_none_or(|best| specificity > best.specificity) {
                *slot = Some(Match { quality, specificity, position });
            }
        };
        if is("application/openmetrics-text") && versioned("1.0.0") {
            offer(&mut openmetrics, 2);
        } else if is("text/plain") && versioned("0.0.4") {
            offer(&mut text, 2);
        } else if is("text/*") {
            offer(&mut text, 1);
        } else if is("application/*") {
            offer(&mut openmetrics, 1);
        } else if is("*/*") {
            offer(&mut text, 0);
            offer(&mut openmetrics, 0);
        }
    }
    let rank = |found: Match| (found.quality, found.specificity, usize::MAX - found.position);
    match (text.filter(|found| found.quality > 0), openmetrics.filter(|found| found.quality > 0)) {
        (Some(text), Some(openmetrics)) if rank(openmetrics) > rank(text) => Format::OpenMetrics,
        (None, Some(_)) => Format::OpenMetrics,
        _ => Format::Text,
    }
}

#[derive(Clone, Copy)]
struct Match {
    /// In thousandths.
    quality: u16,
    specificity: u8,
    position: usize,
}

/// Whether the values of `Accept-Encoding` allow gzip and do not prefer the plain body.
#[must_use]
pub fn accepts_gzip<'a>(accept_encoding: impl Iterator<Item = &'a str>) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for coding in accept_encoding.flat_map(|value| split(value, ',')) {
        let mut parts = split(coding, ';');
        let name = parts.next().unwrap_or("");
        let quality = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1000, |(_, value)| parse_quality(value.trim()));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(quality);
        } else if name.eq_ignore_ascii_case("identity") {
            identity = Some(quality);
        } else if name == "*" {
            any = Some(quality);
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

fn split(value: &str, separator: char) -> impl Iterator<Item = &str> {
    value.split(separator).map(str::trim).filter(|part| !part.is_empty())
}

/// A qvalue in thousandths; what is none counts as 0.
fn parse_quality(value: &str) -> u16 {
    value.parse::<f32>().map_or(0, |quality| (quality.clamp(0.0, 1.0) * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_accept() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let protobuf_first = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let table: &[(&[&str], Format)] = &[
            (&[], Format::Text),
            (&[""], Format::Text),
            (&["*/*"], Format::Text),
            (&[browser], Format::Text),
            (&[prometheus_2], Format::OpenMetrics),
            (&[prometheus_3], Format::OpenMetrics),
            (&[protobuf_first], Format::Text),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8"], Format::OpenMetrics),
            (&["application/openmetrics-text;version=0.0.1"], Format::Text),
            (&["application/openmetrics-text;version=2.0.0, */*;q=0.1"], Format::Text),
            (&["application/openmetrics-text;q=0.4, text/plain;q=0.5"], Format::Text),
            (&["application/openmetrics-text;q=0.5, text/plain;q=0.4"], Format::OpenMetrics),
            (&["application/openmetrics-text, text/plain"], Format::OpenMetrics),
            (&["text/plain, application/openmetrics-text"], Format::Text),
            (&["application/openmetrics-text;q=0, */*"], Format::Text),
            (&["text/plain;q=0, */*"], Format::OpenMetrics),
            (&["text/plain;q=0.3", "application/openmetrics-text;q=0.9"], Format::OpenMetrics),
            (&["application/*"], Format::OpenMetrics),
            (&["text/*, application/openmetrics-text;q=0.9"], Format::Text),
            (&["application/openmetrics-text;q=nonsense"], Format::Text),
            (&["image/png"], Format::Text),
            (&[";;,,;q=,=;"], Format::Text),
        ];
        for (accept, wanted) in table {
            assert_eq!(format(accept.iter().copied()), *wanted, "{accept:?}");
        }
    }

    #[test]
    fn gzip_follows_accept_encoding() {
        let table: &[(&[&str], bool)] = &[
            (&[], false),
            (&["gzip"], true),
            (&["GZip;q=1.0"], true),
            (&["x-gzip"], true),
            (&["deflate, gzip;q=0.5, br"], true),
            (&["br", "gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000, *"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["identity"], false),
            (&["gzip;q=0.5, identity;q=0.6"], false),
            (&["gzip;q=0.6, identity;q=0.5"], true),
            (&["gzip; q = 0"], false),
            (&["gzip;q=x"], false),
        ];
        for (accept, wanted) in table {
            assert_eq!(accepts_gzip(accept.iter().copied()), *wanted, "{accept:?}");
        }
    }
}
