//! Calling codes of countries (ITU-T E.164), and what is dialled before a number within a country.

/// How numbers of a country are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallingCode {
    /// What stands before them from abroad.
    pub code: &'static str,
    /// What stands before them within the country, and falls away from abroad.
    pub trunk: Option<&'static str>,
}

/// Countries (ISO 3166-1), each with its code.
const CODES: &str = "AC247 AD376 AE971 AF93 AG1 AI1 AL355 AM374 AO244 AR54 AS1 AT43 AU61 AW297 AX358 \
     AZ994 BA387 BB1 BD880 BE32 BF226 BG359 BH973 BI257 BJ229 BL590 BM1 BN673 BO591 \
     BQ599 BR55 BS1 BT975 BW267 BY375 BZ501 CA1 CC61 CD243 CF236 CG242 CH41 CI225 CK682 \
     CL56 CM237 CN86 CO57 CR506 CU53 CV238 CW599 CX61 CY357 CZ420 DE49 DJ253 DK45 DM1 \
     DO1 DZ213 EC593 EE372 EG20 EH212 ER291 ES34 ET251 FI358 FJ679 FK500 FM691 FO298 \
     FR33 GA241 GB44 GD1 GE995 GF594 GG44 GH233 GI350 GL299 GM220 GN224 GP590 GQ240 GR30 \
     GT502 GU1 GW245 GY592 HK852 HN504 HR385 HT509 HU36 ID62 IE353 IL972 IM44 IN91 IO246 \
     IQ964 IR98 IS354 IT39 JE44 JM1 JO962 JP81 KE254 KG996 KH855 KI686 KM269 KN1 KP850 \
     KR82 KW965 KY1 KZ7 LA856 LB961 LC1 LI423 LK94 LR231 LS266 LT370 LU352 LV371 LY218 \
     MA212 MC377 MD373 ME382 MF590 MG261 MH692 MK389 ML223 MM95 MN976 MO853 MP1 MQ596 \
     MR222 MS1 MT356 MU230 MV960 MW265 MX52 MY60 MZ258 NA264 NC687 NE227 NF672 NG234 \
     NI505 NL31 NO47 NP977 NR674 NU683 NZ64 OM968 PA507 PE51 PF689 PG675 PH63 PK92 PL48 \
     PM508 PR1 PS970 PT351 PW680 PY595 QA974 RE262 RO40 RS381 RU7 RW250 SA966 SB677 \
     SC248 SD249 SE46 SG65 SH290 SI386 SJ47 SK421 SL232 SM378 SN221 SO252 SR597 SS211 \
     ST239 SV503 SX1 SY963 SZ268 TA290 TC1 TD235 TG228 TH66 TJ992 TK690 TL670 TM993 \
     TN216 TO676 TR90 TT1 TV688 TW886 TZ255 UA380 UG256 US1 UY598 UZ998 VA39 VC1 VE58 \
     VG1 VI1 VN84 VU678 WF681 WS685 XK383 YE967 YT262 ZA27 ZM260 ZW263";
/// Countries in whose numbers a leading zero is a digit as any other, or none leads.
const WITHOUT_TRUNK: &str = "AD BF BH BI BJ CG CI CL CM CR CV CY CZ DJ DK EE ES GA GI GN GQ GR GT HK HN \
     HT IS IT KM KW LU LV MC MO MR MT MU MZ NE NI NO OM PA PL PT QA RW SC SG SM SN SV TD TG TN VA";
/// Countries where it is not a zero.
const OTHER_TRUNKS: [(&str, &str); 6] =
    [("RU", "8"), ("KZ", "8"), ("BY", "8"), ("TM", "8"), ("LT", "8"), ("HU", "06")];

/// How numbers of a country (two letters, in any case) are dialled.
pub(super) fn find(country: &str) -> Option<CallingCode> {
    let country = country.to_ascii_uppercase();
    let is_code = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
    let found = |entry: &'static str| entry.strip_prefix(&*country);
    let code = CODES.split(' ').find_map(found).filter(|_| is_code)?;
    let other = OTHER_TRUNKS.iter().find(|(other, _)| *other == country);
    let trunk = match code {
        _ if WITHOUT_TRUNK.split(' ').any(|without| without == country) => None,
        "1" => Some("1"),
        _ => Some(other.map_or("0", |(_, trunk)| trunk)),
    };
    Some(CallingCode { code, trunk })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_two_letters_and_up_to_three_digits() {
        for entry in CODES.split(' ') {
            let (country, code) = entry.split_at(2);
            assert!((1..=3).contains(&code.len()), "{entry}");
            assert!(code.bytes().all(|byte| byte.is_ascii_digit()), "{entry}");
            assert_eq!(find(country).map(|found| found.code), Some(code));
        }
        for listed in WITHOUT_TRUNK.split(' ').chain(OTHER_TRUNKS.map(|(country, _)| country)) {
            assert!(find(listed).is_some(), "{listed}");
        }
        assert_eq!(find("DE4"), None);
        assert_eq!(find(""), None);
    }
}
